"""Plain text for terminals and logs: summaries and tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.cli.display.folding import fold, fold_line
from asyncbatch.cli.display.progress_lines import cluster_facts
from asyncbatch.core.report import Report, StreamReport
from asyncbatch.core.units import (
    format_count,
    format_elapsed,
    format_location,
    format_rate,
    format_seconds,
    format_size,
    printable,
)
from asyncbatch.formats.decoder import encode as encode_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.records import Failure
    from asyncbatch.core.report import (
        AnyReport,
        ClusterStatus,
        SinkReport,
        SlowFile,
        SourceReport,
    )
    from asyncbatch.core.tally import FailureBudget, FailureGroup


class SummaryOptions(NamedTuple):
    """The values that a summary shows or obeys, besides those of the report."""

    exit_code: int
    budget: FailureBudget | None = None
    max_failures: float = 20  # groups of equal failures to show
    slowest: int | None = None  # the number of slow files to show; None: those that take long
    next_steps: Sequence[str] = ()  # what the user may do now
    width: int | None = None  # columns of the terminal; None: lines may have any length


def status_line(report: AnyReport, options: SummaryOptions) -> str:
    """Return the status of a run or stream in a word, the exit code, and the reason for it."""
    word = f"{report.status.capitalize()} (exit status {options.exit_code})"
    reason = _status_reason(report, options)
    return f"{word}: {reason}" if reason else word


def _status_reason(report: AnyReport, options: SummaryOptions) -> str | None:
    if report.error is not None:
        return printable(report.error)
    if report.over_budget:
        return "more failures than --max-failures allows"
    if isinstance(report, Report):
        return next(_run_reasons(report, options), None)
    return next(_stream_reasons(report, options), None)


def _run_reasons(report: Report, options: SummaryOptions) -> Iterator[str]:
    """Yield the reasons for the status of a run, the one that counts first."""
    tally, noun = report.tally, report.input_noun
    if report.interrupted:
        yield "stopped by a signal before the end"
    if report.target_lost:
        yield "the results could not be written"
    if not tally.files:
        yield "there was no input"
    if tally.failures and not options.exit_code:
        yield "the failures are within --max-failures"
    if tally.failures and report.status == "failed":
        yield f"no {noun} succeeded"
    lost = [f"{format_count(tally.failed, noun)} failed"] if tally.failed else []
    if tally.rejected:
        were = "was" if tally.rejected == 1 else "were"
        lost.append(f"{format_count(tally.rejected, 'record')} {were} rejected")
    if lost:
        yield " and ".join(lost)


def _stream_reasons(report: StreamReport, options: SummaryOptions) -> Iterator[str]:
    """Yield the reasons for the exit status of a stream, the one that counts first."""
    tally = report.tally
    if tally.refused:
        yield f"the target refused {format_count(tally.refused, 'window')}"
    if options.exit_code and tally.all_rejected:
        yield "every event was rejected"
    if options.exit_code and report.stopped:
        yield "stopped by a signal"


def headline(report: Report) -> str:
    """Return a summary of the run in one line."""
    tally = report.tally
    outcomes = {
        "planned" if report.is_plan else "succeeded": tally.succeeded,
        "partial": tally.partial,
        "failed": tally.failed,
        "skipped": tally.skipped,
    }
    split = ", ".join(f"{number:,} {word}" for word, number in outcomes.items() if number)
    verdict = "Found" if report.is_plan else "Processed"
    if report.interrupted:
        verdict = "Interrupted after"
    files = format_count(tally.files, report.input_noun)
    line = f"{verdict} {files} in {format_seconds(report.elapsed_s)}"
    return f"{line}: {split}" if split else line


def report_rows(report: Report, options: SummaryOptions) -> Iterator[tuple[str, str]]:
    """Yield the rows of the summary as pairs of name and value, the most asked for first."""
    tally, seconds = report.tally, report.elapsed_s or 1e-9
    parts = {"passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected}
    split = ", ".join(f"{number:,} {word}" for word, number in parts.items() if number)
    yield "records", f"{tally.read:,} read" + (f": {split}" if split else "")
    for number, step in enumerate(options.next_steps):
        yield "" if number else "next", step
    if report.sink is not None:
        name = printable(report.sink.display_name)
        yield "written", f"{tally.written:,} to {name}{_sink_options(report.sink)}"
    elif report.target is not None:
        yield "written", f"{tally.written:,} to {printable(report.target)}"
    elif tally.written:  # a merged report may have no sink
        yield "written", f"{tally.written:,}"
    if tally.retries:
        yield "retries", f"{tally.retries:,} after temporary failures"
    yield "size", format_size(tally.bytes)
    for number, source in enumerate(report.sources):
        yield "" if number else "sources", f"{printable(source.name)}: {source_line(source)}"
    records = format_rate(tally.read / seconds, "record")
    rates = f"{records}, {format_size(tally.bytes / seconds)}/s"
    if report.input_noun == "file":  # inputs of other sources are too few for a rate
        rates = f"{format_rate(tally.files / seconds, 'file')}, {rates}"
    yield "rate", rates
    if (cluster := report.crew) is None:
        yield "memory", f"{format_size(report.peak_memory_bytes)} at the peak, all processes"
    else:
        yield (
            "memory",
            f"{format_size(report.peak_memory_bytes)} at the peak, here and beside the workers",
        )
        yield "dask", cluster_line(cluster)
    for number, slow in enumerate(_slow_files(report, options.slowest)):
        took = format_elapsed(slow.elapsed_ms)
        yield "" if number else "slowest", f"{took}  {printable(slow.file)}"


# A file that takes longer is worth a line. A list of files that took no time says nothing.
_NOTABLE_MS = 1000.0


def _slow_files(report: Report, count: int | None) -> list[SlowFile]:
    if count is not None:
        return report.slowest[:count]
    if report.tally.files < 2:
        return []
    return [slow for slow in report.slowest if slow.elapsed_ms >= _NOTABLE_MS]


def cluster_line(cluster: ClusterStatus) -> str:
    """Return the summary of a cluster."""
    mean = f" of {format_seconds(cluster.busy_s / cluster.tasks)}" if cluster.tasks else ""
    return f"{cluster_facts(cluster)}, {format_count(cluster.tasks, 'task')}{mean}"


def source_line(source: SourceReport) -> str:
    """Return the summary of one source."""
    tally, noun = source.tally, source.input_noun
    inputs = format_count(tally.files, noun)
    outcomes = {"failed": tally.failed, "skipped": tally.skipped}
    split = ", ".join(f"{number:,} {word}" for word, number in outcomes.items() if number)
    parts = [source.state, f"{inputs} ({split})" if split else inputs]
    if (traffic := source.traffic) is not None:
        parts += [format_count(traffic.pages, "page"), format_count(traffic.requests, "request")]
    parts.append(format_count(tally.read, "record"))
    parts += [f"{tally.rejected:,} rejected"] if tally.rejected else []
    return ", ".join(parts)


def _sink_options(sink: SinkReport) -> str:
    """Return the mode and key of a table, and its rejected rows."""
    way = f", {sink.mode}" if sink.mode else ""
    way += f" by {', '.join(map(printable, sink.key))}" if sink.key else ""
    return f"{way}; {sink.rejected:,} refused" if sink.rejected else way


def failure_reason(failure: Failure) -> str:
    """Return the message of a failure with its record number and byte."""
    more = [] if failure.record is None else [f"record {failure.record:,}"]
    if failure.byte is not None:
        more.append(f"byte {failure.byte:,}")
    return printable(failure.message) + (f" ({', '.join(more)})" if more else "")


def failure_place(group: FailureGroup) -> str:
    """Return the place of a failure, or the number of equal ones and the place of the first."""
    place = format_location(group.first)
    return place if group.count == 1 else f"{group.count:,} times, first {place}"


def failures_by_kind(
    report: AnyReport, max_failures: float
) -> Iterator[tuple[str, int, list[FailureGroup]]]:
    """Yield each kind, sorted, with the number of its failures and the groups to show.

    The first `max_failures` groups of equal failures are shown, in input order.
    """
    shown = _shown_groups(report, max_failures)
    if max_failures:
        for kind, count in sorted(report.kinds.items()):
            yield kind, count, [one for one in shown if one.first.kind == kind]


def _shown_groups(report: AnyReport, max_failures: float) -> list[FailureGroup]:
    return report.first_groups[: int(min(max_failures, len(report.groups)))]


def hidden_failures(report: AnyReport, max_failures: float) -> str | None:
    """Return the line about hidden failures, or None if all are shown."""
    shown = _shown_groups(report, max_failures)
    omitted = report.failure_count - sum(one.count for one in shown)
    if not omitted:
        return None
    return (
        f"... and {format_count(omitted, 'more failure')} (--show-failures all, or --report FILE)"
    )


def closing_lines(report: Report, budget: FailureBudget | None) -> Iterator[str]:
    """Yield the closing notes, the last one about the failure budget."""
    yield from map(printable, report.notes)
    if report.discarded:
        yield printable(report.discarded)
    if line := budget_line(report, budget):
        yield line


def budget_line(report: AnyReport, budget: FailureBudget | None) -> str | None:
    """Return the line about the failure budget, or None without budget or failures."""
    if budget is None or not report.tally.failures:
        return None
    failures = format_count(report.tally.failures, "failure")
    link = " of"
    if budget.percent:
        noun = "events" if isinstance(report, StreamReport) else "files and records"
        failures, link = f"{failures} in {report.tally.seen:,} {noun}", ","
    if report.over_budget:
        return f"Stopped: {failures}, more than the {budget} that --max-failures allows"
    return f"Within the failure budget: {failures}{link} at most {budget}"


def summary_text(report: AnyReport, options: SummaryOptions) -> str:
    """Return the failures by kind and the summary."""
    if isinstance(report, StreamReport):
        return "".join(f"{line}\n" for line in stream_summary_lines(report, options))
    width = options.width
    lines = failure_lines(report, options.max_failures, width)
    lines += [""] if lines else []
    lines += fold_line(status_line(report, options), width)
    lines += fold_line(headline(report), width)
    for label, value in report_rows(report, options):
        lines += row_lines(label, value, width)
    for line in closing_lines(report, options.budget):
        lines += fold_line(line, width)
    return "\n".join(lines) + "\n"


LABEL_WIDTH = 8  # columns of the names of rows


def row_lines(label: str, value: str, width: int | None) -> list[str]:
    """Return a row of the summary; its further lines begin below the value."""
    beginning = f"  {label:{LABEL_WIDTH}} "
    lines = fold(value.split(" "), width, beginning, " " * len(beginning))
    return [line.rstrip() for line in lines]


def failure_lines(report: AnyReport, max_failures: float, width: int | None = None) -> list[str]:
    """Return lines for the first `max_failures` failures, grouped by kind."""
    lines = []
    for kind, count, groups in failures_by_kind(report, max_failures):
        lines.append(f"{kind} ({count:,})")
        for one in groups:
            lines += fold_failure(one, failure_reason(one.first), width)
    if more := hidden_failures(report, max_failures):
        lines += fold_line(more, width)
    return lines


def fold_failure(
    group: FailureGroup, reason: str, width: int | None, indent: str = "  "
) -> Iterator[str]:
    """Yield the lines about equal failures. The place is one word: a name may have blanks."""
    place = format_location(group.first)
    times = [] if group.count == 1 else [f"{group.count:,}", "times,", "first"]
    return fold([*times, f"{place}:", *reason.split(" ")], width, indent, "    ")


_MAX_CELL_CHARACTERS = 40
_GAP_CHARACTERS = 2


class Grid(NamedTuple):
    """A table of texts: the columns that fit, their rows, and the hidden columns."""

    columns: list[str]
    rows: list[list[str]]
    hidden_columns: list[str]


def make_grid(
    rows: Sequence[dict[str, Any]],
    width: int | None,
    *,
    max_cell: int | None = _MAX_CELL_CHARACTERS,
) -> Grid:
    """Return rows as texts, with the columns that fit into `width`, at least one.

    `width`, and `max_cell` of a text, are in characters. None means no limit.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = {name: _truncate(printable(name), max_cell) for name in names}
    columns = {name: [_truncate(_cell(row, name), max_cell) for row in rows] for name in names}
    shown: list[str] = []
    left = width
    for name in names:
        if left is not None:
            left -= _GAP_CHARACTERS + max(len(heads[name]), *map(len, columns[name]))
            if left < 0 and shown:
                break
        shown.append(name)
    table = [list(cells) for cells in zip(*(columns[name] for name in shown), strict=True)]
    return Grid(
        [heads[name] for name in shown], table, [printable(name) for name in names[len(shown) :]]
    )


def plain_grid(grid: Grid) -> Iterator[str]:
    """Yield the lines of a table."""
    widths = [max(map(len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]
    gap = " " * _GAP_CHARACTERS
    for row in (grid.columns, ["-" * width for width in widths], *grid.rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (gap + gap.join(cells)).rstrip()


def _cell(row: dict[str, Any], name: str) -> str:
    """Return the text of a cell: without quotes, empty for a missing field."""
    if name not in row:
        return ""
    value = row[name]
    return printable(value if isinstance(value, str) else encode_value(value).decode())


def _truncate(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def loss_line(failure: Failure) -> str:
    """Return the line about source data that could not be read."""
    return f"lost  {format_location(failure)}: {failure.kind}: {printable(failure.message)}"


def stream_summary_lines(report: StreamReport, options: SummaryOptions) -> Iterator[str]:
    """Yield the summary lines of a stream."""
    shown = _shown_groups(report, options.max_failures)
    for group in shown:
        reason = f"{group.first.kind}: {printable(group.first.message)}"
        yield from fold_failure(group, reason, options.width, "rejected  ")
    for line in _stream_lines(report, options, shown):
        row = _ROW.match(line)
        if row:
            yield from row_lines(row[1], row[2], options.width)
        else:
            yield from fold_line(line, options.width)


_ROW = re.compile(r"  (\w+) +(.*)")


def _stream_lines(
    report: StreamReport, options: SummaryOptions, shown: Sequence[FailureGroup]
) -> Iterator[str]:
    """Yield the lines after those of the rejected events, in any length."""
    tally, seconds = report.tally, report.elapsed_s or 1e-9
    if (more := tally.rejected - sum(group.count for group in shown)) > 0:
        yield f"... and {more:,} more (--dead-letter keeps them all)"
    for reason in tally.refusals:
        yield f"refused  {printable(reason)}"
    if more := tally.refused - len(tally.refusals):
        yield f"... and {more:,} more"
    if tally.losses and (more := tally.lost - len(tally.losses)):
        yield f"... and {more:,} more read errors"
    yield status_line(report, options)
    verdict = "Stopped after" if report.stopped else "Processed"
    since = f", {tally.read:,} since the stream began" if tally.read != report.read else ""
    events = format_count(report.read, "event")
    yield f"{verdict} {events} in {format_seconds(report.elapsed_s)}{since}"
    parts = {"in windows": tally.events, "dropped": tally.dropped, "late": tally.late}
    parts["rejected"] = tally.rejected
    split = [f"{number:,} {word}" for word, number in parts.items() if number]
    if tally.late_in_part:
        split.append(f"{tally.late_in_part:,} late for some of their windows")
    yield f"  events   {', '.join(split) or 'none'}"
    if tally.retries:
        yield f"  retries  {tally.retries:,} after temporary failures"
    if report.left:
        yield f"  left     {format_count(report.left, 'event')} that arrived, not processed"
    if tally.lost:
        yield f"  lost     {format_count(tally.lost, 'time')} (unreadable events, see above)"
    refused = f", {tally.refused:,} refused by the target" if tally.refused else ""
    yield f"  windows  {tally.windows:,} (one for each key){refused}"
    rate = format_size(report.bytes / seconds)
    yield f"  rate     {format_rate(report.read / seconds, 'event')}, {rate}/s"
    yield f"  memory   {format_size(report.memory.peak)} at the peak"
    yield from map(printable, report.notes)
    if report.over_budget and (line := budget_line(report, options.budget)):
        yield line
