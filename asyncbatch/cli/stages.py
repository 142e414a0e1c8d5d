"""What is said of a run that is watched stage by stage; how it looks is for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.words import count, size

if TYPE_CHECKING:
    from asyncbatch.run import Snapshot
    from asyncbatch.sections import SourceReport, Stages


def stage_counts(snapshot: Snapshot, stages: Stages) -> list[tuple[str, int]]:
    """Return how many records each stage has seen, and how many ended on the way."""
    worked, tally = stages.worked, snapshot.tally
    counts = [
        ("records extracted", worked.read),
        ("transformed", worked.passed),
        ("loaded", tally.written),
        ("rejected", max(worked.rejected, tally.rejected)),
    ]
    return [*counts, ("dropped", worked.dropped)] if worked.dropped else counts


def source_words(source: SourceReport) -> list[str]:
    """Return how far a source is: its state, its pages, its inputs, its records."""
    noun, ended = source.input_noun, source.tally.files
    pages = [count(source.traffic.pages, "page")] if source.traffic else []
    more = "" if source.is_complete else "+"
    inputs = f"{ended:,} of {source.found:,}{more} {noun}{'' if source.found == 1 else 's'}"
    failed = [f"{source.tally.failed:,} failed"] if source.tally.failed else []
    return [source.state, *pages, f"{source.extracted:,} records", inputs, *failed]


def queue_words(snapshot: Snapshot, stages: Stages) -> str:
    """Return how full the queues between the stages are: what is at their end is what waits."""
    refused = snapshot.tally.rejected - stages.worked.rejected
    rows = max(0, stages.worked.written - snapshot.tally.written - max(0, refused))
    in_flight = min(snapshot.in_flight, stages.lanes)  # what has ended may not be settled yet
    flight = f"{in_flight:,} of at most {count(stages.lanes, 'batch')} in flight"
    waiting = f"{count(stages.waiting, 'page')} waiting, " if _has_feeds(stages) else ""
    return f"{waiting}{flight}, {count(rows, 'row')} to load"


def rate_words(snapshot: Snapshot, stages: Stages) -> str:
    """Return how fast it goes, on the average so far."""
    seconds = snapshot.elapsed_s or 1e-9
    records, length = stages.worked.read / seconds, stages.worked.bytes / seconds
    return f"{records:,.0f} records/s, {size(length)}/s"


def _has_feeds(stages: Stages) -> bool:
    return any(source.type != "files" for source in stages.sources)
