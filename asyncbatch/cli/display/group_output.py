"""The output of aggregates: a table, or an object for each group."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from asyncbatch.cli.display.text import make_grid, plain_grid
from asyncbatch.cli.output import Output, to_stdout
from asyncbatch.cli.render.json import JsonLines, JsonReport, encode, run_object
from asyncbatch.cli.terminal import stdout
from asyncbatch.core.report import Report
from asyncbatch.formats.decoder import encode_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.config.options.control import OutputFlags
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.sinks.groups import GroupRows


class _GroupReport(JsonReport):
    """A renderer of the report object, with the groups."""

    def __init__(self, rows: GroupRows) -> None:
        self._rows = rows

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the report object."""
        assert isinstance(report, Report)
        fields = run_object(report, command, exit_code)
        if report.discarded is None:
            fields.groups = self._rows.objects()
        yield encode(fields) + b"\n"


class _GroupLines(JsonLines):
    """A renderer of one line per event, the groups among them."""

    def __init__(self, rows: GroupRows) -> None:
        self._rows = rows

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the lines of the groups, then that of the summary."""
        yield encode_lines([{"event": "group", **one} for one in self._rows.objects()])
        yield from super().finish(report, command, exit_code)


class GroupOutput(Output):
    """The output of a run with aggregates: their table or objects, and the summary."""

    def __init__(self, options: OutputFlags, *, rows: GroupRows, **more: Any) -> None:
        super().__init__(options, **more)
        self._rows = rows
        match self.form:
            case "json":
                self._renderer = _GroupReport(rows)
            case "jsonl":
                self._renderer = _GroupLines(rows)

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the table, then the summary of the run."""
        assert isinstance(report, Report)
        self.close()
        if report.discarded is not None:
            report.discarded = "no result is shown, because the run did not finish"
        if self.form == "text" and self._rows.rows:
            width = shutil.get_terminal_size().columns if stdout().isatty() else None
            text = "".join(f"{line}\n" for line in self._lines(width))
            await to_stdout(text.encode("utf-8", "backslashreplace"))
        await super().finish(report, budget, command, exit_code)

    def _lines(self, width: int | None) -> Iterator[str]:
        # Cells are cut only for a reader, not for a program.
        more = {} if width is not None else {"max_cell": None}
        grid = make_grid(self._rows.rows, width, **more)
        yield from plain_grid(grid)
        if grid.hidden_columns:
            yield f"  ... and {', '.join(grid.hidden_columns)} (in a wider terminal, or -o json)"
        if not self.quiet:
            yield ""
