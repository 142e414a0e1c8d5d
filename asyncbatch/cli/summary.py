"""What is said at the end, as plain rows and lines; how they look is for others."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from asyncbatch.words import count, duration, printable, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.budget import FailureBudget
    from asyncbatch.records import Failure
    from asyncbatch.report import Report
    from asyncbatch.sections import Crew, SinkReport, SourceReport


def headline(report: Report) -> str:
    """Return the run in one line."""
    tally = report.tally
    outcomes = {
        "succeeded": tally.succeeded,
        "partial": tally.partial,
        "failed": tally.failed,
        "skipped": tally.skipped,
    }
    split = ", ".join(f"{number:,} {word}" for word, number in outcomes.items() if number)
    verdict = "Interrupted after" if report.interrupted else "Processed"
    files = f"{verdict} {count(tally.files, report.input_noun)} in {duration(report.elapsed_s)}"
    return f"{files}: {split}" if split else files


def rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the summary table: what, and how much."""
    tally, seconds = report.tally, report.elapsed_s or 1e-9
    parts = {"passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected}
    split = ", ".join(f"{number:,} {word}" for word, number in parts.items() if number)
    yield "records", f"{tally.read:,} read" + (f": {split}" if split else "")
    if report.sink is not None:
        yield "written", f"{tally.written:,} to {printable(report.sink.place)}{_ways(report.sink)}"
    elif report.target is not None:
        yield "written", f"{tally.written:,} to {printable(report.target)}"
    elif tally.written:  # a merged report, which does not know where to
        yield "written", f"{tally.written:,}"
    if tally.retries:
        yield "retries", f"{tally.retries:,} of what failed for the moment"
    yield "size", size(tally.bytes)
    for number, source in enumerate(report.sources):
        yield "" if number else "sources", f"{printable(source.name)}: {source_line(source)}"
    rates = f"{tally.read / seconds:,.0f} records/s, {size(tally.bytes / seconds)}/s"
    if report.input_noun == "file":  # of which there are many
        rates = f"{tally.files / seconds:,.0f} files/s, {rates}"
    yield "rate", rates
    if (crew := report.crew) is None:
        yield "memory", f"{size(report.peak_memory_bytes)} at the peak, all processes"
    else:
        yield "memory", f"{size(report.peak_memory_bytes)} at the peak, here and beside the workers"
        yield "dask", crew_line(crew)
    for number, slow in enumerate(report.slowest):
        yield "" if number else "slowest", f"{slow.elapsed_ms:,.1f} ms  {printable(slow.file)}"


def crew_line(crew: Crew) -> str:
    """Return what a cluster was and did."""
    mean = f" of {duration(crew.busy_s / crew.tasks)}" if crew.tasks else ""
    return f"{crew_words(crew)}, {count(crew.tasks, 'task')}{mean}"


def crew_words(crew: Crew) -> str:
    """Return how many workers there are, and how many are there no more."""
    left = f" ({crew.left:,} left)" if crew.left else ""
    return f"{count(crew.workers, 'worker')}{left}"


def source_line(source: SourceReport) -> str:
    """Return what one source came to."""
    tally, noun = source.tally, source.input_noun
    inputs = count(tally.files, noun)
    outcomes = {"failed": tally.failed, "skipped": tally.skipped}
    split = ", ".join(f"{number:,} {word}" for word, number in outcomes.items() if number)
    parts = [source.state, f"{inputs} ({split})" if split else inputs]
    if (traffic := source.traffic) is not None:
        parts += [count(traffic.pages, "page"), count(traffic.requests, "request")]
    parts.append(count(tally.read, "record"))
    parts += [f"{tally.rejected:,} rejected"] if tally.rejected else []
    return ", ".join(parts)


def _ways(sink: SinkReport) -> str:
    """Return how rows got there and which of them did not."""
    way = f", {sink.mode}" if sink.mode else ""
    way += f" by {', '.join(map(printable, sink.key))}" if sink.key else ""
    return f"{way}; {sink.rejected:,} refused" if sink.rejected else way


def reason(failure: Failure) -> str:
    """Return why, with what the place does not say."""
    more = [] if failure.record is None else [f"record {failure.record:,}"]
    if failure.byte is not None:
        more.append(f"byte {failure.byte:,}")
    return printable(failure.message) + (f" ({', '.join(more)})" if more else "")


def failure_groups(report: Report, most: float) -> Iterator[tuple[str, list[Failure]]]:
    """Yield the first `most` failures by kind, the kinds in order of their names."""
    shown = report.failures[: int(min(most, len(report.kept)))]
    for kind, group in groupby(sorted(shown, key=lambda one: one.kind), lambda one: one.kind):
        yield kind, list(group)


def hidden_failures(report: Report, most: float) -> str | None:
    """Return the line about the failures that are not shown, if any."""
    omitted = report.failure_count - int(min(most, len(report.kept)))
    if not omitted:
        return None
    return f"... and {count(omitted, 'more failure')} (--show-failures all, or --report FILE)"


def closing_lines(report: Report, budget: FailureBudget | None) -> Iterator[str]:
    """Yield what else is to be said: of the failure budget, and of a target left as it was."""
    yield from map(printable, report.notes)
    if report.discarded:
        yield printable(report.discarded)
    if line := budget_line(report, budget):
        yield line


def budget_line(report: Report, budget: FailureBudget | None) -> str | None:
    """Return what the failure budget came to, if there was one to speak of."""
    if budget is None or not report.tally.failures:
        return None
    failures = count(report.tally.failures, "failure")
    if report.over_budget:
        return f"Stopped: {failures}, more than the {budget} that --max-failures allows"
    return f"Within the failure budget: {failures} of at most {budget}"
