"""The outputs of profiles: tables or an object, and the schema that is inferred from a profile."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from msgspec.json import format as format_json

from asyncbatch.cli.display.text import make_grid, plain_grid
from asyncbatch.cli.output import Output, to_stdout
from asyncbatch.cli.render.json import encode, run_object
from asyncbatch.cli.terminal import stdout
from asyncbatch.core.report import Report
from asyncbatch.core.settings import ProfileSettings
from asyncbatch.core.units import format_count, printable
from asyncbatch.formats.decoder import encode as encode_value
from asyncbatch.transforms.profile.infer import DIALECT, infer_schema
from asyncbatch.transforms.profile.profile import Profile
from asyncbatch.transforms.profile.summary import summarize
from asyncbatch.transforms.profile.widen import widen_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.config.options.control import OutputFlags
    from asyncbatch.config.options.profiles import InferFlags, ProfileFlags
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.records import Json
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.storage.atomic import AtomicFile
    from asyncbatch.transforms.profile.summary import FieldSummary, ProfileSummary

_SHOWN_NAMES = 12  # of a shape
_ORDERED = ("date", "date-time", "local-time")  # formats of texts whose order is of interest


class MergingOutput(Output):
    """An output that merges the profiles of the parts of a run."""

    def __init__(
        self, options: OutputFlags, max_fields: int, *, stdout_is_taken: bool = False
    ) -> None:
        super().__init__(options, stdout_is_taken=stdout_is_taken)
        self.profile = Profile(ProfileSettings(max_fields))

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

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the profile, then the summary of the run."""
        assert isinstance(report, Report)
        self.close()
        summary = await asyncio.to_thread(
            summarize, self.profile, redacts=self._flags.redact, top=self._flags.top
        )
        if self.form == "json":
            fields = run_object(report, command, exit_code)
            fields.profile = summary
            await to_stdout(encode(fields) + b"\n")
            return
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

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Write the schema of a run that ended, then print the summary of the run."""
        assert isinstance(report, Report)
        self.close()
        if not report.interrupted and not report.over_budget and self.profile:
            await self._write(await asyncio.to_thread(self._schema))
        elif self._file is not None:  # after a signal the process ends at once
            await asyncio.to_thread(self._file.discard)
        await super().finish(report, budget, command, exit_code)

    def _schema(self) -> bytes:
        field = self.profile.whole_documents() if self._whole else self.profile.records()
        if self._old is None:
            schema: Json = {"$schema": DIALECT, **infer_schema(field, strict=self._strict)}
        else:
            schema = widen_schema(self._old, field, strict=self._strict)
        return format_json(encode_value(schema), indent=2) + b"\n"

    async def _write(self, text: bytes) -> None:
        if self._file is None:
            await to_stdout(text)
        else:
            await asyncio.to_thread(self._file.write, text)
            await asyncio.to_thread(self._file.commit)


def profile_lines(summary: ProfileSummary, width: int | None) -> Iterator[str]:
    """Yield the lines of a profile, of at most `width` characters if it is given."""
    if summary.fields:
        fields = format_count(len(summary.fields), "field")
        yield f"{format_count(summary.records, 'record')}, {fields}"
        grid = make_grid(list(map(_cells, summary.fields)), width)
        yield from plain_grid(grid)
        if grid.hidden_columns:
            yield f"  ... and {', '.join(grid.hidden_columns)} (in a wider terminal, or -o json)"
        yield ""
    if summary.max_fields_exceeded:
        yield "More than --max-fields: objects with many fields are shown as maps"
        yield ""
    if summary.keys:
        yield f"Candidate keys: {', '.join(map(printable, summary.keys))}"
        yield ""
    yield from _shape_lines(summary)
    if summary.different_files:
        yield "Files that differ from the rest"
        for one in summary.different_files:
            more = f" (and {format_count(one.files - 1, 'more file')})" if one.files > 1 else ""
            yield f"  {printable(one.file)}{more}: {printable('; '.join(one.reasons))}"
        yield ""


def _shape_lines(summary: ProfileSummary) -> Iterator[str]:
    if len(summary.shapes) + bool(summary.other_shapes) < 2:
        return
    yield "Shapes of records"
    for shape in summary.shapes:
        yield f"  {shape.records:>9,}  {shape.type}{_names(shape.names)}"
    if summary.other_shapes:
        yield f"  {summary.other_shapes:>9,}  of other shapes"
    yield ""


def _names(names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f": {', '.join(map(printable, names[:_SHOWN_NAMES]))}{more}"


def _cells(row: FieldSummary) -> dict[str, Any]:
    """Return the cells of a field. Each is a text, so that all rows have the same columns."""
    types = "|".join(row.types)
    if row.is_map:
        types = f"map of {row.keys:,} keys" if isinstance(row.keys, int) else "map"
    formats = row.formats or {}
    return {
        "field": row.path,
        "type": types,
        "present": _share(row.presence),
        "null": _share(row.null_share) if row.null_share else "",
        "distinct": _distinct(row),
        "range": _range(row),
        "format": ", ".join(map(_format, formats, formats.values())),
        "examples": _examples(row),
    }


def _distinct(row: FieldSummary) -> str:
    if not isinstance(row.distinct, int):
        return ""
    about = "" if row.distinct_is_exact else "~"
    return f"{about}{row.distinct:,}{' unique' if row.unique is True else ''}"


def _range(row: FieldSummary) -> str:
    """Return the smallest and largest value, or the lengths of texts and arrays."""
    parts = []
    if row.min_items is not UNSET:
        parts.append(f"{_span(row.min_items, row.max_items)} items")
    has_order = isinstance(row.formats, dict) and any(name in _ORDERED for name in row.formats)
    if row.min is not UNSET and (not isinstance(row.min, str) or has_order):
        parts.append(_span(row.min, row.max))
    elif row.min_length is not UNSET:
        parts.append(f"{_span(row.min_length, row.max_length)} characters")
    return ", ".join(parts)


def _span(low: Any, high: Any) -> str:
    return _value(low) if low == high else f"{_value(low)} to {_value(high)}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else encode_value(value).decode()


def _format(name: str, share: float) -> str:
    return name if share == 1 else f"{name} {_share(share)}"


def _share(share: float) -> str:
    """Return a share in percent; never 100% or 0% for a share that is not."""
    percent = 100 * share
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{min(max(percent, 0.1), 99.9):.1f}%"
    return f"{percent:.0f}%"


def _examples(row: FieldSummary) -> str:
    """Return the frequent values with their counts, or a few values."""
    if isinstance(row.top, list):
        return ", ".join(f"{_value(one.value)} ({one.count:,})" for one in row.top)
    return ", ".join(map(_value, row.examples or ()))
