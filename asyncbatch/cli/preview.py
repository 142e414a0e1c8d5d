"""What `etl --dry-run` says: the rows that would be loaded, and what was rejected."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.cli import plain
from asyncbatch.cli.output import Output, to_stdout, wants_style
from asyncbatch.cli.streams import stdout
from asyncbatch.codec.decode import decode
from asyncbatch.codec.encode import encode as encode_value
from asyncbatch.renderers.machine import encode, report_object
from asyncbatch.words import count, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.budget import FailureBudget
    from asyncbatch.records import BatchPart
    from asyncbatch.report import Report
    from asyncbatch.sections import SourceReport

MAX_ROWS = 100
"""Rows of a source that are kept, if it is not to be more records: one may become any number."""
_MAX_CELL = 40
_GAP = 2


class Grid(NamedTuple):
    """A table as texts: the columns that there is room for, the rows, and the other columns."""

    columns: list[str]
    rows: list[list[str]]
    others: list[str]


class PreviewOutput(Output):
    """Shows the rows of `limit` records a source instead of results; `place` is where they go.

    Its jsonl has a `row` event for each beside the usual ones.
    """

    def __init__(self, place: str, sources: Sequence[str], limit: int, **looks: Any) -> None:  # noqa: ANN401 - the options of Output
        super().__init__(**looks)
        self._most = max(MAX_ROWS, limit)
        self._place, self._sources = place, sources
        self._rows: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(sources))}
        self._counts = dict.fromkeys(self._rows, 0)

    async def part(self, found: BatchPart) -> None:
        """Show what became of some records, or keep it for the end."""
        number = found.batch.source
        if found.part.rows is not None:
            rows = [decode(line) for line in bytes(found.part.rows.payload).splitlines()]
            self._counts[number] += len(rows)
            if self.form == "jsonl":
                events = (
                    {"event": "row", "source": self._sources[number], "row": row} for row in rows
                )
                await to_stdout(b"".join(encode_value(event) + b"\n" for event in events))
            else:
                self._rows[number] += rows[: self._most - len(self._rows[number])]
        if self.form != "json":
            await super().part(found)

    async def finish(
        self, report: Report, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Show the tables, or the object."""
        if self.form == "text":
            await super().finish(report, budget, command, exit_code)
            return
        self.close()
        found = {**report_object(report, command, exit_code), "dry_run": True}
        if self.form == "json":
            for number, source in enumerate(found["sources"]):
                source["rows"] = self._rows[number]
                source["rows_omitted"] = self._counts[number] - len(self._rows[number])
        event = {"event": "summary"} if self.form == "jsonl" else {}
        await to_stdout(encode({**event, **found}) + b"\n")

    async def _finish_text(self, report: Report, budget: FailureBudget | None) -> None:  # noqa: ARG002 - there is none
        styled = wants_style(stdout().fileno())
        width = shutil.get_terminal_size().columns if stdout().isatty() else None
        lines: list[str] = []
        for number, source in enumerate(report.sources):
            lines += self._section(number, source, width, styled=styled)
        lines += plain.failure_lines(report, self.show_failures)
        lines += [""] if report.kept else []
        verdict = "Interrupted; nothing" if report.interrupted else "Nothing"
        lines.append(f"{verdict} was loaded (--dry-run): rows go into {printable(self._place)}")
        await to_stdout("\n".join((*lines, "")).encode("utf-8", "backslashreplace"))

    def _section(
        self, number: int, source: SourceReport, width: int | None, *, styled: bool
    ) -> Iterator[str]:
        """Yield the lines about one source."""
        tally, rows = source.tally, self._rows[number]
        parts = [f"{count(tally.read, 'record')} read", count(self._counts[number], "row")]
        parts += [f"{tally.dropped:,} dropped"] if tally.dropped else []
        parts += [f"{tally.rejected:,} rejected"] if tally.rejected else []
        parts += [f"{count(tally.failed, source.input_noun)} failed"] if tally.failed else []
        yield f"{printable(source.name)}: {', '.join(parts)}"
        if rows:
            grid = grid_of(rows, width)
            if styled:
                from asyncbatch.cli.console import grid_text  # noqa: PLC0415 - rich takes a while

                yield grid_text(grid)
            else:
                yield from plain_grid(grid)
            if grid.others:
                yield f"  ... and {count(len(grid.others), 'more field')}: {', '.join(grid.others)}"
        if (more := self._counts[number] - len(rows)) > 0:
            yield f"  ... and {count(more, 'more row')}"
        yield ""


def grid_of(rows: Sequence[dict[str, Any]], width: int | None) -> Grid:
    """Return rows as texts, with the columns that `width` has room for; one at least."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_cell(row, name) for row in rows] for name in names}
    shown: list[str] = []
    left = width
    for name in names:
        if left is not None:
            left -= _GAP + max(len(_cut(printable(name))), *map(len, columns[name]))
            if left < 0 and shown:
                break
        shown.append(name)
    table = [list(cells) for cells in zip(*(columns[name] for name in shown), strict=True)]
    heads = [_cut(printable(name)) for name in shown]
    return Grid(heads, table, [printable(name) for name in names[len(shown) :]])


def plain_grid(grid: Grid) -> Iterator[str]:
    """Yield a table as lines."""
    widths = [max(map(len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]
    gap = " " * _GAP
    for row in (grid.columns, ["-" * width for width in widths], *grid.rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (gap + gap.join(cells)).rstrip()


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a value as people read it; nothing if there is none."""
    if name not in row:
        return ""
    value = row[name]
    return _cut(printable(value if isinstance(value, str) else encode_value(value).decode()))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
