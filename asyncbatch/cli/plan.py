"""What `--dry-run` says: the batches, and the files in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.cli import plain
from asyncbatch.cli.output import Output, to_stdout
from asyncbatch.renderers.machine import encode, report_object
from asyncbatch.words import count, printable, size

if TYPE_CHECKING:
    from asyncbatch.budget import FailureBudget
    from asyncbatch.records import BatchPart
    from asyncbatch.report import Report


class PlanOutput(Output):
    """Lists batches instead of results; its jsonl has a `planned` event for each file."""

    _batches = 0

    @property
    def streams(self) -> bool:
        """Whether results come on stdout while the run goes on: see `Output`."""
        return self.form != "json"

    async def part(self, found: BatchPart) -> None:
        """Show one batch."""
        self._batches += 1
        part = found.part
        names = [found.file(place) for place in range(len(part))]
        if self.form == "jsonl":
            for name, length in zip(names, part.bytes, strict=True):
                event = {"event": "planned", "file": name, "batch": self._batches, "bytes": length}
                await to_stdout(encode(event) + b"\n")
        elif self.form == "text" and not self.quiet:
            head = f"batch {self._batches}: {count(len(part), 'file')}, {size(sum(part.bytes))}\n"
            lines = [
                f"  {printable(name)}  {size(length)}\n"
                for name, length in zip(names, part.bytes, strict=True)
            ]
            await to_stdout("".join((head, *lines)).encode())

    async def finish(
        self,
        report: Report,
        budget: FailureBudget | None,  # noqa: ARG002 - nothing was run that could spend it
        command: str,
        exit_code: int,
    ) -> None:
        """Show the totals."""
        if self.form != "text":
            plan = {"dry_run": True, "batches": self._batches}
            event = {"event": "summary"} if self.form == "jsonl" else {}
            summary = {**event, **report_object(report, command, exit_code), **plan}
            await to_stdout(encode(summary) + b"\n")
            return
        failures = plain.failure_lines(report, self.show_failures)
        files = count(report.tally.files, "file")
        total = f"Would process {files}, {size(report.tally.bytes)}, in {self._batches} batches"
        await to_stdout("".join(f"{line}\n" for line in (*failures, total)).encode())
