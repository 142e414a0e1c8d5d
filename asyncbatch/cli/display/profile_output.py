"""The outputs of profiles: tables or an object, and the schema that is inferred from a profile."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from msgspec.json import format as format_json

from asyncbatch.cli.display.profile_lines import profile_lines
from asyncbatch.cli.output import Output, to_stdout
from asyncbatch.cli.terminal import stdout
from asyncbatch.core.report import Report
from asyncbatch.core.settings import ProfileSettings
from asyncbatch.core.units import printable
from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import encode as encode_value
from asyncbatch.transforms.profile.infer import DIALECT, infer_schema
from asyncbatch.transforms.profile.profile import Profile
from asyncbatch.transforms.profile.summary import ProfileSummary, summarize
from asyncbatch.transforms.profile.widen import widen_schema
from asyncbatch.transforms.schema_file import load_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.config.options.control import OutputFlags
    from asyncbatch.config.options.profiles import InferFlags, ProfileFlags
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.records import Json
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.storage.atomic import AtomicFile
    from asyncbatch.transforms.profile.fields import Field


class MergingOutput(Output):
    """An output that merges the profiles of the parts of a run."""

    def __init__(
        self, options: OutputFlags, max_fields: int, *, stdout_is_taken: bool = False
    ) -> None:
        super().__init__(options, stdout_is_taken=stdout_is_taken)
        self.profile: Profile = Profile(ProfileSettings(max_fields))

    async def part(self, found: BatchPart) -> None:
        """Merge the profile of a part."""
        summary, found.part.summary = found.part.summary, None
        if isinstance(summary, Profile) and summary:
            await asyncio.to_thread(self.profile.merge, summary)
        await super().part(found)


class ProfileOutput(MergingOutput):
    """The output of `profile`: tables and the summary of the run, or one object."""

    def __init__(self, options: OutputFlags, flags: ProfileFlags) -> None:
        super().__init__(options, flags.max_fields)
        self._flags = flags

    async def complete(self, report: AnyReport) -> None:
        """Add the summary of the profile to the report."""
        assert isinstance(report, Report)
        report.profile = await asyncio.to_thread(
            summarize, self.profile, redacts=self._flags.redact, top=self._flags.top
        )

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the profile, then the summary of the run."""
        if self.form == "json":
            await super().finish(report, budget, command, exit_code)
            return
        self.close()
        assert isinstance(report, Report)
        summary = report.profile
        assert isinstance(summary, ProfileSummary)
        width = shutil.get_terminal_size().columns if stdout().isatty() else None
        text = "".join(f"{line}\n" for line in profile_lines(summary, width))
        await to_stdout(text.encode("utf-8", "backslashreplace"))
        await super().finish(report, budget, command, exit_code)


class InferOutput(MergingOutput):
    """The output of `schema infer`: a schema, also if some inputs failed.

    It goes to `file`, which is open, or to standard output. `old` is the schema to widen.
    `whole`: the schema is for documents.
    """

    def __init__(
        self,
        options: OutputFlags,
        flags: InferFlags,
        file: AtomicFile | None,
        *,
        old: Json = None,
        whole: bool = False,
    ) -> None:
        super().__init__(options, flags.max_fields, stdout_is_taken=file is None)
        self._strict, self._file, self._old, self._whole = flags.strict, file, old, whole
        self._path = flags.to or flags.update or ""  # which the references are relative to

    async def complete(self, report: AnyReport) -> None:
        """Fail a run that has seen nothing: its schema would accept everything."""
        assert isinstance(report, Report)
        ended = report.tally.files and not report.interrupted and not report.over_budget
        if ended and self._old is None and not self._seen().count:
            report.error = "no input had an accepted record, so that no schema is written"

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Write the schema of a run that ended, then print the summary of the run."""
        assert isinstance(report, Report)
        self.close()
        ended = not report.interrupted and not report.over_budget and report.error is None
        if ended and self.profile:
            await self._write(await asyncio.to_thread(self._schema))
        elif self._file is not None:  # after a signal the process ends at once
            await asyncio.to_thread(self._file.discard)
        await super().finish(report, budget, command, exit_code)

    def _quiet_lines(self, report: AnyReport, budget: FailureBudget | None) -> Iterable[str]:
        yield from super()._quiet_lines(report, budget)
        if report.error is not None:
            yield f"Error: {printable(report.error)}"

    def _seen(self) -> Field:
        """Return the statistics of the values that the schema is about."""
        return self.profile.whole_documents() if self._whole else self.profile.records()

    def _schema(self) -> bytes:
        field = self._seen()
        if self._old is None:
            schema: Json = {"$schema": DIALECT, **infer_schema(field, strict=self._strict)}
        else:
            schema = widen_schema(self._old, field, strict=self._strict)
        text = format_json(encode_value(schema), indent=2) + b"\n"
        if self._old is not None:
            self._check(text)
        return text

    def _check(self, text: bytes) -> None:
        """Raise UsageError for an updated schema that cannot be used."""
        try:
            load_schema(self._path, check_formats=False, text=text)
        except UsageError as error:
            raise UsageError(
                f"the schema cannot be updated, and nothing was written: its update would be "
                f"wrong: {error}"
            ) from None

    async def _write(self, text: bytes) -> None:
        if self._file is None:
            await to_stdout(text)
        else:
            await asyncio.to_thread(self._file.write, text)
            await asyncio.to_thread(self._file.commit)
