"""The displays and tables drawn with rich."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncbatch.cli import text as summary
from asyncbatch.cli.terminal import stdout
from asyncbatch.cli.text import (
    memory_text,
    queue_facts,
    rate_facts,
    seconds_left,
    source_facts,
    stage_counts,
    stream_facts,
)
from asyncbatch.core.units import format_seconds, format_size, printable, printable_lines
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from asyncbatch.cli.text import Grid
    from asyncbatch.core.report import Report, SourceReport, StageProgress, StreamReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.pipeline.run import Snapshot
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window

_BAR_WIDTH = 40
_OUTCOME_STYLES = {"rejected": "bold red", "dropped": "dim"}
_STATE_STYLES = {"done": "green", "failed": "bold red", "reading": "cyan"}


class LiveProgress:
    """A progress display of a run on stderr that redraws itself in place."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the display."""
        self._live.update(_render_progress(snapshot), refresh=True)

    def log(self, line: str) -> None:
        """Write a line above the display."""
        self._console.print(Text(printable_lines(line)), soft_wrap=True)

    def close(self) -> None:
        """Remove the display and restore the cursor."""
        self._live.stop()


def _render_progress(snapshot: Snapshot) -> RenderableType:
    if snapshot.stages is not None:
        return _render_stages(snapshot, snapshot.stages)
    tally, seconds, total = snapshot.tally, snapshot.elapsed_s or 1e-9, snapshot.total
    done = f"{tally.files:,} of {total:,}" if total else f"{tally.files:,} of {snapshot.found:,}+"
    head = Table.grid(padding=(0, 1))
    head.add_row(
        ProgressBar(total or 1, tally.files if total else 0, width=_BAR_WIDTH, pulse=total is None),
        Text(f"{tally.files / total:.0%}" if total else "searching", style="bold"),
        Text(f"{done} files"),
        Text(f"{snapshot.batches:,} batches, {snapshot.in_flight} in flight", style="dim"),
        Text(summary.cluster_facts(snapshot.crew) if snapshot.crew else "", style="dim"),
    )
    left = seconds_left(snapshot)
    facts = Text("  ").join(
        [
            Text(f"{tally.files / seconds:,.0f} files/s"),
            Text(f"{tally.read / seconds:,.0f} records/s"),
            Text(f"{format_size(tally.bytes / seconds)}/s"),
            Text(memory_text(snapshot)),
            Text(f"{tally.failures:,} failed", style="bold red" if tally.failures else "green"),
            Text(
                format_seconds(snapshot.elapsed_s)
                + (f", {format_seconds(left)} left" if left else "")
            ),
        ]
    )
    return Group(head, facts)


def _render_stages(snapshot: Snapshot, stages: StageProgress) -> RenderableType:
    """Return the display of a pipeline: stages, sources, rates and queues."""
    counts = stage_counts(snapshot, stages)
    flow = [Text(f"{number:,} {word}", "bold") for word, number in counts[:3]]
    lost = [
        Text(f"{number:,} {word}", _OUTCOME_STYLES[word] if number else "dim")
        for word, number in counts[3:]
    ]
    head = Text("   ").join([Text(" → ").join(flow), *lost])
    table = Table.grid(padding=(0, 2))
    for source in stages.sources:
        state, *rest = source_facts(source)
        cells = [Text(state, _STATE_STYLES.get(state, "")), *map(Text, _pad(rest, source))]
        table.add_row(Text(f"  {printable(source.name)}"), *cells)
    facts = [
        rate_facts(snapshot, stages),
        memory_text(snapshot),
        format_seconds(snapshot.elapsed_s),
    ]
    facts += [summary.cluster_facts(snapshot.crew)] if snapshot.crew else []
    return Group(head, table, Text("  ".join(facts)), Text(queue_facts(snapshot, stages), "dim"))


def _pad(cells: list[str], source: SourceReport) -> list[str]:
    """Return the cells with an empty one for the pages of a source that has none."""
    return cells if source.traffic else ["", *cells]


def summary_text(report: Report, budget: FailureBudget | None, max_failures: float) -> str:
    """Return the failures by kind and the summary, styled for the terminal of stdout."""
    console = Console(file=stdout())
    with console.capture() as capture:
        _print_failures(console, report, max_failures)
        style = "green" if report.status == "success" else "yellow"
        console.print(Text(summary.headline(report), style=f"bold {style}"))
        rows = list(summary.report_rows(report))
        width = max(len(label) for label, _ in rows)
        for label, value in rows:  # a rich table would wrap paths, which users copy
            row = Text.assemble((f"  {label:{width}}  ", "dim"), value)
            console.print(row, soft_wrap=True)
        for line in summary.closing_lines(report, budget):
            console.print(Text(line, style="bold red" if report.over_budget else "yellow"))
    return capture.get()


def grid_text(grid: Grid) -> str:
    """Return a table as text, styled for the terminal of stdout."""
    console = Console(file=stdout())
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
    for name in grid.columns:
        table.add_column(Text(name), no_wrap=True)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _print_failures(console: Console, report: Report, max_failures: float) -> None:
    for kind, count, groups in summary.failures_by_kind(report, max_failures):
        console.print(Text.assemble((kind, "bold red"), f" ({count:,})"))
        for one in groups:
            place, reason = summary.failure_place(one), summary.failure_reason(one.first)
            line = Text.assemble("  ", (place, "bold"), ": ", reason)
            console.print(line, soft_wrap=True)
    if more := summary.hidden_failures(report, max_failures):
        console.print(Text(more, style="dim"))
    if report.kept:
        console.print()


_RESERVED_LINES = 8  # lines of the screen that are not windows: head, rules, facts, the prompt
_DATE_CHARACTERS = 10  # the length of YYYY-MM-DD at the beginning of a timestamp


class LiveWindows:
    """A live table of the open windows and the last closed ones, with a line of facts."""

    def __init__(self, stream: StreamCore) -> None:
        self._stream = stream
        self._console = Console()
        self._closed: deque[Window] = deque(maxlen=self._free_lines())
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def add(self, windows: Sequence[Window]) -> None:
        """Add closed windows to the table."""
        self._closed.extend(windows)

    def show(self, snapshot: StreamSnapshot | StreamReport) -> None:
        """Redraw the table."""
        self._live.update(self._render(snapshot), refresh=True)

    def log(self, line: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(printable_lines(line), style="yellow"))

    def close(self) -> None:
        """Keep the last table on the screen and restore the cursor."""
        self._live.stop()

    def _free_lines(self) -> int:
        return max(4, self._console.height - _RESERVED_LINES)

    def _render(self, snapshot: StreamSnapshot | StreamReport) -> RenderableType:
        stream, height = self._stream, self._free_lines()
        opened = stream.open_windows[: height // 2]
        over = list(self._closed)[-(height - len(opened)) :]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("window")
        for name in stream.keys.names:
            table.add_column(printable(name))
        for aggregate in stream.recipe.aggregates:
            table.add_column(printable(aggregate.name), justify="right")
        for (start, end, is_open), group in groupby(
            [*((one, False) for one in over), *((one, True) for one in opened)],
            lambda found: (found[0].start, found[0].end, found[1]),
        ):
            span = f"{_format_time(start)} - {_format_time(end)}"
            style = "dim" if is_open else None
            for one, _ in group:
                key = map(_format_value, stream.keys.named(one.key).values())
                values = map(_format_value, stream.recipe.results(one.totals).values())
                if span:
                    span += " ..." if is_open else " partial" if one.partial else ""
                table.add_row(span, *key, *values, style=style)
                span = ""
        return Group(table, Text(""), Text("  ".join(stream_facts(snapshot)), style="cyan"))


def _format_time(micros: int) -> str:
    return utc_text(micros)[_DATE_CHARACTERS + 1 : -1]


def _format_value(value: Any) -> Text:
    if type(value) is float:
        return Text(f"{value:,.2f}")
    return Text(f"{value:,}" if type(value) is int else printable(str(value)))
