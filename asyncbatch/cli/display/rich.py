"""The displays and tables drawn with rich."""

from __future__ import annotations

import os
from collections import deque
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncbatch.cli.display import text as summary
from asyncbatch.cli.display.folding import fold_line
from asyncbatch.cli.display.progress_lines import (
    PaceMeter,
    bytes_done,
    cluster_facts,
    files_done,
    memory_text,
    queue_facts,
    record_rates,
    slow_text,
    source_facts,
    stage_counts,
    stream_facts,
)
from asyncbatch.cli.display.screen import Screen
from asyncbatch.cli.terminal import stdout
from asyncbatch.core.units import (
    format_count,
    format_location,
    format_rate,
    format_remaining,
    format_seconds,
    format_size,
    printable,
)
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from asyncbatch.cli.display.progress_lines import Pace
    from asyncbatch.cli.display.text import Grid, SummaryOptions
    from asyncbatch.core.report import Report, SourceReport, StageProgress, StreamReport
    from asyncbatch.pipeline.run import Snapshot
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window

_BAR_WIDTH = 40
_GAP = "  "
_OUTCOME_STYLES = {"rejected": "bold red", "dropped": "dim"}
_STATE_STYLES = {"done": "green", "failed": "bold red", "reading": "cyan"}


class LiveProgress:
    """A progress display of a run on stderr that redraws itself in place."""

    count_after: float | None = 0.0

    def __init__(self) -> None:
        self._console = _console(stderr=True)
        self._meter = PaceMeter()
        self._screen = Screen(self._console, is_kept=False)
        self.log, self.suspend = self._screen.log, self._screen.suspend

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the display."""
        pace = self._meter.measure(snapshot)
        width = self._console.width
        if snapshot.stages is not None:
            shown = _render_stages(snapshot, snapshot.stages, pace, width)
        else:
            shown = _render_progress(snapshot, pace, width)
        self._screen.show(shown)

    def close(self) -> None:
        """Remove the display and restore the cursor."""
        self._screen.close()


def _render_progress(snapshot: Snapshot, pace: Pace, width: int) -> RenderableType:
    tally, left = snapshot.tally, pace.seconds_left
    is_counting = snapshot.expected is not None and not snapshot.expected.is_complete
    facts = [
        Text(pace.percent or ("counting" if is_counting else ""), "bold"),
        Text(files_done(snapshot)),
        Text("" if left is None else f"{format_remaining(left)} left"),
        Text(bytes_done(snapshot, pace) or ""),
    ]
    bar_width = min(_BAR_WIDTH, width // 4)
    bar = ProgressBar(1, pace.fraction or 0, width=bar_width, pulse=pace.fraction is None)
    first, rest = _fit(facts, width - bar_width - 1)
    head = Table.grid(padding=(0, 1))
    head.add_row(bar, first)
    batches = f"{format_count(snapshot.batches, 'batch')}, {snapshot.in_flight} in flight"
    second, _ = _fit(
        [
            *rest,
            Text(f"{tally.failures:,} failed", "bold red" if tally.failures else "green"),
            Text(format_rate(pace.files, "file")),
            Text(format_rate(pace.records, "record")),
            Text(f"{format_size(pace.bytes)}/s"),
            Text(format_seconds(snapshot.elapsed_s)),
            Text(memory_text(snapshot)),
            Text(batches, "dim"),
            Text(cluster_facts(snapshot.crew) if snapshot.crew else "", "dim"),
        ],
        width,
    )
    return Group(head, second, *_slow_lines(snapshot, width))


def _slow_lines(snapshot: Snapshot, width: int) -> list[Text]:
    """Return the line about files that take long, if there are any."""
    if not snapshot.slow:
        return []
    return [Text(slow_text(snapshot.slow, width), "yellow", no_wrap=True, overflow="ellipsis")]


def _fit(facts: Iterable[Text], width: int) -> tuple[Text, list[Text]]:
    """Return a line of those facts that fit into the width, and the others."""
    line, rest = Text(no_wrap=True, overflow="ellipsis"), []
    for fact in filter(None, facts):
        gap = _GAP if line else ""
        if line and line.cell_len + len(gap) + fact.cell_len > width:
            rest.append(fact)
        else:
            line.append(gap).append_text(fact)
    return line, rest


def _render_stages(
    snapshot: Snapshot, stages: StageProgress, pace: Pace, width: int
) -> RenderableType:
    """Return the display of a pipeline: stages, sources, rates and queues."""
    counts = stage_counts(snapshot, stages)
    flow = [Text(f"{number:,} {word}", "bold") for word, number in counts[:3]]
    lost = [
        Text(f"{number:,} {word}", _OUTCOME_STYLES[word] if number else "dim")
        for word, number in counts[3:]
    ]
    head, _ = _fit([Text(" → ").join(flow), *lost], width)
    table = Table.grid(padding=(0, 2))
    for source in stages.sources:
        state, *rest = source_facts(source)
        cells = [Text(state, _STATE_STYLES.get(state, "")), *map(Text, _pad(rest, source))]
        table.add_row(Text(f"  {printable(source.name)}"), *cells)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    left = "" if pace.seconds_left is None else f"{format_remaining(pace.seconds_left)} left"
    facts = [
        record_rates(pace),
        format_seconds(snapshot.elapsed_s),
        left,
        files_done(snapshot) if snapshot.is_watching else "",
        memory_text(snapshot),
        cluster_facts(snapshot.crew) if snapshot.crew else "",
    ]
    queues, _ = _fit((Text(queue_facts(snapshot, stages), "dim"),), width)
    rates, _ = _fit(map(Text, facts), width)
    return Group(head, table, rates, queues, *_slow_lines(snapshot, width))


def _pad(cells: list[str], source: SourceReport) -> list[str]:
    """Return the cells with an empty one for the pages of a source that has none."""
    return cells if source.traffic else ["", *cells]


def _console(*, file: IO[str] | None = None, stderr: bool = False) -> Console:
    """Return a console, without bold too under NO_COLOR: rich leaves out only colors."""
    is_plain = bool(os.environ.get("NO_COLOR"))
    return Console(file=file, stderr=stderr, color_system=None if is_plain else "auto")


def summary_text(report: Report, options: SummaryOptions) -> str:
    """Return the failures by kind and the summary, styled for the terminal of stdout."""
    console = _console(file=stdout())
    with console.capture() as capture:
        _print_failures(console, report, options)
        style = {"success": "green", "failed": "red"}.get(report.status, "yellow")
        _print_line(console, summary.status_line(report, options), f"bold {style}", options.width)
        _print_line(console, summary.headline(report), "", options.width)
        for label, value in summary.report_rows(report, options):
            # a rich table would wrap paths, which users copy
            for line in summary.row_lines(label, value, options.width):
                name = summary.LABEL_WIDTH + 2
                row = Text.assemble((line[:name], "dim"), line[name:])
                console.print(row, soft_wrap=True)
        for line in summary.closing_lines(report, options.budget):
            line_style = "bold red" if report.over_budget else "yellow"
            _print_line(console, line, line_style, options.width)
    return capture.get()


def _print_line(console: Console, line: str, style: str, width: int | None) -> None:
    for folded in fold_line(line, width):
        console.print(Text(folded, style), soft_wrap=True)


def grid_text(grid: Grid) -> str:
    """Return a table as text, styled for the terminal of stdout."""
    console = _console(file=stdout())
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
    for name in grid.columns:
        table.add_column(Text(name), no_wrap=True)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _print_failures(console: Console, report: Report, options: SummaryOptions) -> None:
    for kind, count, groups in summary.failures_by_kind(report, options.max_failures):
        console.print(Text.assemble((kind, "bold red"), f" ({count:,})"))
        for one in groups:
            place, reason = format_location(one.first), summary.failure_reason(one.first)
            for line in summary.fold_failure(one, reason, options.width):
                text = Text(line)
                text.highlight_words([place], "bold")
                console.print(text, soft_wrap=True)
    if more := summary.hidden_failures(report, options.max_failures):
        _print_line(console, more, "dim", options.width)
    if report.kept:
        console.print()


_RESERVED_LINES = 8  # lines of the screen that are not windows: head, facts, notes, the prompt
_NARROW_WIDTH = 60  # of a screen that has no room for the ends of windows
_DATE_CHARACTERS = 10  # the length of YYYY-MM-DD at the beginning of a timestamp


class LiveWindows:
    """A live table of the open windows and the last closed ones, with a line of facts."""

    count_after: float | None = None

    def __init__(self, stream: StreamCore) -> None:
        self._stream = stream
        self._closed_count = 0
        self._console = _console()
        self._closed: deque[Window] = deque(maxlen=self._free_lines())
        self._screen = Screen(self._console, is_kept=True)
        self.suspend = self._screen.suspend

    def add(self, windows: Sequence[Window]) -> None:
        """Add closed windows to the table."""
        self._closed.extend(windows)
        self._closed_count += len(windows)

    def show(self, snapshot: StreamSnapshot | StreamReport) -> None:
        """Redraw the table."""
        self._screen.show(self._render(snapshot))

    def log(self, line: str) -> None:
        """Write a line above the table."""
        self._screen.log(line, "yellow")

    def close(self) -> None:
        """Keep the last table on the screen and restore the cursor."""
        self._screen.close()

    def _free_lines(self) -> int:
        return max(4, self._console.height - _RESERVED_LINES)

    def _render(self, snapshot: StreamSnapshot | StreamReport) -> RenderableType:
        stream, height = self._stream, self._free_lines()
        opened = stream.open_windows[: height // 2]
        over = list(self._closed)[-(height - len(opened)) :]
        names = [*stream.keys.names, *(one.name for one in stream.recipe.aggregates)]
        heads = [Text("window"), *(Text(printable(name)) for name in names)]
        rows, styles = [heads], ["bold"]
        for (start, end, is_open), group in groupby(
            [*((one, False) for one in over), *((one, True) for one in opened)],
            lambda found: (found[0].start, found[0].end, found[1]),
        ):
            span = _format_time(start)
            if self._console.width >= _NARROW_WIDTH:
                span += f" - {_format_time(end)}"
            for one, _ in group:
                key = map(_format_value, stream.keys.named(one.key).values())
                values = map(_format_value, stream.recipe.results(one.totals).values())
                if span:
                    span += " ..." if is_open else " partial" if one.partial else ""
                rows.append([Text(span), *key, *values])
                styles.append("dim" if is_open else "")
                span = ""
        width = self._console.width
        shown = _count_fitting(rows, width)
        table = Table.grid(padding=(0, len(_GAP), 0, 0))
        for number in range(shown):
            is_value = number > len(stream.keys.names)
            table.add_column(justify="right" if is_value else "left", no_wrap=True)
        for row, style in zip(rows, styles, strict=True):
            table.add_row(*row[:shown], style=style)
        hidden = self._hidden_rows(len(opened), len(over))
        if left_out := ", ".join(head.plain for head in heads[shown:]):
            hidden.append(
                Text(f"no room for: {left_out}", "dim", no_wrap=True, overflow="ellipsis")
            )
        facts, rest = _fit([Text(fact, "cyan") for fact in stream_facts(snapshot)], width)
        return Group(table, *hidden, Text(""), facts, *([_fit(rest, width)[0]] if rest else []))

    def _hidden_rows(self, opened: int, closed: int) -> list[Text]:
        """Return the line about the windows for which the table has no room, if there are any."""
        counts = {
            "closed": self._closed_count - closed,
            "open": len(self._stream.open_windows) - opened,
        }
        more = [f"{number:,} {word}" for word, number in counts.items() if number > 0]
        noun = "window" if len(more) == 1 and more[0].startswith("1 ") else "windows"
        return [Text(f"not shown: {', '.join(more)} {noun}", "dim")] if more else []


def _count_fitting(rows: Sequence[Sequence[Text]], width: int) -> int:
    """Return the number of columns that fit into the width, at least the first and second."""
    count = used = 0
    for cells in zip(*rows, strict=True):
        used += max(cell.cell_len for cell in cells) + (len(_GAP) if count else 0)
        if used > width and count > 1:
            break
        count += 1
    return count


def _format_time(micros: int) -> str:
    return utc_text(micros)[_DATE_CHARACTERS + 1 : -1]


def _format_value(value: Any) -> Text:
    if type(value) is float:
        return Text(f"{value:,.2f}")
    return Text(f"{value:,}" if type(value) is int else printable(str(value)))
