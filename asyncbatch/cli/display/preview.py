"""The outputs of `--dry-run`: rows of `asyncbatch etl`, batches of `asyncbatch run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.cli.display import text as plain
from asyncbatch.cli.display.text import make_grid, plain_grid
from asyncbatch.cli.output import Output, events_to_stdout, to_stdout
from asyncbatch.cli.render.json import encode, run_object
from asyncbatch.cli.terminal import columns_of, stdout, wants_style
from asyncbatch.core.report import Report
from asyncbatch.core.units import format_count, format_size, printable
from asyncbatch.formats.decoder import decode
from asyncbatch.formats.decoder import encode as encode_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.cli.display.text import SummaryOptions
    from asyncbatch.config.options.control import OutputFlags
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import AnyReport, SourceReport
    from asyncbatch.core.tally import FailureBudget

MAX_ROWS = 100  # rows kept per source, because one record may become any number of rows


class PreviewOutput(Output):
    """The output of `etl --dry-run`: the rows of `limit` records of each source.

    `destination` is the text for the target. JSON Lines have a `row` event for each row.
    """

    def __init__(
        self, destination: str, sources: Sequence[str], limit: int, options: OutputFlags
    ) -> None:
        super().__init__(options)
        self._max_rows = max(MAX_ROWS, limit)
        self._destination, self._sources = destination, sources
        self._rows: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(sources))}
        self._row_counts = dict.fromkeys(self._rows, 0)

    async def part(self, found: BatchPart) -> None:
        """Print the rows of some records, or keep them for `finish`."""
        number = found.batch.source
        if found.part.rows is not None:
            rows = [decode(line) for line in bytes(found.part.rows.payload).splitlines()]
            self._row_counts[number] += len(rows)
            if self.form == "jsonl":
                events = (
                    {"event": "row", "source": self._sources[number], "row": row} for row in rows
                )
                await to_stdout(b"".join(encode_value(event) + b"\n" for event in events))
            else:
                self._rows[number] += rows[: self._max_rows - len(self._rows[number])]
        if self.form != "json":
            await super().part(found)

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the tables, or the report object with the rows."""
        assert isinstance(report, Report)
        if self.form == "text":
            await super().finish(report, budget, command, exit_code)
            return
        self.close()
        summary = run_object(report, command, exit_code)
        summary.dry_run = True
        if self.form == "jsonl":
            summary.event = "summary"
        elif self.form == "json":
            for number, source in enumerate(summary.sources or ()):
                source.rows = self._rows[number]
                source.rows_omitted = self._row_counts[number] - len(self._rows[number])
        await to_stdout(encode(summary) + b"\n")

    async def _finish_text(self, report: AnyReport, options: SummaryOptions) -> None:  # noqa: ARG002 - a dry run has no summary
        assert isinstance(report, Report)
        styled = wants_style(stdout().fileno())
        width = columns_of(stdout().fileno())
        lines: list[str] = []
        for number, source in enumerate(report.sources):
            lines += self._section(number, source, width, styled=styled)
        lines += plain.failure_lines(report, self.show_failures, width)
        lines += [""] if report.kept else []
        verdict = "Interrupted; nothing" if report.interrupted else "Nothing"
        lines.append(
            f"{verdict} was loaded (--dry-run): rows go into {printable(self._destination)}"
        )
        await to_stdout("\n".join((*lines, "")).encode("utf-8", "backslashreplace"))

    def _section(
        self, number: int, source: SourceReport, width: int | None, *, styled: bool
    ) -> Iterator[str]:
        """Yield the lines of one source: counts, table, omitted fields and rows."""
        tally, rows = source.tally, self._rows[number]
        parts = [
            f"{format_count(tally.read, 'record')} read",
            format_count(self._row_counts[number], "row"),
        ]
        parts += [f"{tally.dropped:,} dropped"] if tally.dropped else []
        parts += [f"{tally.rejected:,} rejected"] if tally.rejected else []
        parts += [f"{format_count(tally.failed, source.input_noun)} failed"] if tally.failed else []
        yield f"{printable(source.name)}: {', '.join(parts)}"
        if rows:
            grid = make_grid(rows, width)
            if styled:
                from asyncbatch.cli.display.rich import grid_text

                yield grid_text(grid)
            else:
                yield from plain_grid(grid)
            if grid.hidden_columns:
                others = format_count(len(grid.hidden_columns), "more field")
                yield f"  ... and {others}: {', '.join(grid.hidden_columns)}"
        if (more := self._row_counts[number] - len(rows)) > 0:
            yield f"  ... and {format_count(more, 'more row')}"
        yield ""


class PlanOutput(Output):
    """The output of `run --dry-run`: the files of each batch.

    JSON Lines have a `planned` event for each file.
    """

    is_plan = True
    _batches = 0

    @property
    def streams_results(self) -> bool:
        return self.form != "json"

    async def part(self, found: BatchPart) -> None:
        """Print one batch."""
        self._batches += 1
        part = found.part
        names = [found.file(index) for index in range(len(part))]
        if self.form == "jsonl":
            for name, length in zip(names, part.bytes, strict=True):
                event = {"event": "planned", "file": name, "batch": self._batches, "bytes": length}
                await events_to_stdout(encode(event) + b"\n")
        elif self.form == "text" and not self.quiet:
            files, bytes_ = format_count(len(part), "file"), format_size(sum(part.bytes))
            head = f"batch {self._batches}: {files}, {bytes_}\n"
            lines = [
                f"  {printable(name)}  {format_size(length)}\n"
                for name, length in zip(names, part.bytes, strict=True)
            ]
            await to_stdout("".join((head, *lines)).encode())

    async def finish(
        self,
        report: AnyReport,
        budget: FailureBudget | None,  # noqa: ARG002 - a dry run spends no budget
        command: str,
        exit_code: int,
    ) -> None:
        """Print the totals."""
        assert isinstance(report, Report)
        if self.form != "text":
            summary = run_object(report, command, exit_code)
            summary.batches = self._batches
            if self.form == "jsonl":
                summary.event = "summary"
            await events_to_stdout(encode(summary) + b"\n")
            return
        failures = plain.failure_lines(report, self.show_failures, columns_of(stdout().fileno()))
        files = format_count(report.tally.files, "file")
        total = (
            f"Would process {files}, {format_size(report.tally.bytes)}, "
            f"in {format_count(self._batches, 'batch')}"
        )
        await to_stdout("".join(f"{line}\n" for line in (*failures, total)).encode())
