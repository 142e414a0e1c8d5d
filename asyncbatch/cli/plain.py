"""The run as plain text: for pipes, files, cron mails and CI logs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.cli import summary
from asyncbatch.cli.stages import queue_words, rate_words, source_words, stage_counts
from asyncbatch.words import count, duration, location, printable, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.budget import FailureBudget
    from asyncbatch.report import Report
    from asyncbatch.run import Snapshot
    from asyncbatch.sections import Stages

LINE_EVERY_SECONDS = 5.0


class PlainProgress:
    """Writes a line now and then, and none for a run that is soon over."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last = time.monotonic()

    def show(self, snapshot: Snapshot) -> None:
        """Write how far the run is, if it is time."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            self._write(progress_line(snapshot))

    def log(self, line: str) -> None:
        """Write a line at once."""
        self._write(line)

    def close(self) -> None:
        """End the display; there is nothing to take away."""


def progress_line(snapshot: Snapshot) -> str:
    """Return how far the run is, in one line."""
    if snapshot.stages is not None:
        return _stages_line(snapshot, snapshot.stages)
    tally, seconds = snapshot.tally, snapshot.elapsed_s or 1e-9
    done = f"{tally.files:,} files"
    if snapshot.total:
        done = f"{tally.files:,} of {snapshot.total:,} files ({tally.files / snapshot.total:.0%})"
    parts = [
        *([summary.crew_words(snapshot.crew)] if snapshot.crew else []),
        done,
        f"{tally.files / seconds:,.0f} files/s",
        f"{tally.read / seconds:,.0f} records/s",
        f"{size(tally.bytes / seconds)}/s",
        memory(snapshot),
        count(tally.failures, "failure"),
    ]
    if (left := seconds_left(snapshot)) is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def _stages_line(snapshot: Snapshot, stages: Stages) -> str:
    counts = [f"{number:,} {word}" for word, number in stage_counts(snapshot, stages)]
    sources = [
        f"{printable(source.name)}: {', '.join(source_words(source))}" for source in stages.sources
    ]
    rest = [rate_words(snapshot, stages), queue_words(snapshot, stages), memory(snapshot)]
    rest += [summary.crew_words(snapshot.crew)] if snapshot.crew else []
    return "; ".join([", ".join(counts), *sources, *rest])


def memory(snapshot: Snapshot) -> str:
    """Return the memory of this process, and of the workers if there are any."""
    ours = f"{size(snapshot.memory_bytes)} memory"
    if not snapshot.worker_memory_bytes:
        return ours
    return f"{ours} + {size(snapshot.worker_memory_bytes)} in workers"


def seconds_left(snapshot: Snapshot) -> float | None:
    """Return the estimate of what remains, once the number of files is known."""
    done = snapshot.tally.files
    if not snapshot.total or not done:
        return None
    return (snapshot.total - done) * snapshot.elapsed_s / done


def summary_text(report: Report, budget: FailureBudget | None, most: float) -> str:
    """Return the failures by kind, then the summary."""
    lines = failure_lines(report, most)
    lines += [""] if lines else []
    lines.append(summary.headline(report))
    lines += [f"  {label:8} {value}".rstrip() for label, value in summary.rows(report)]
    lines += summary.closing_lines(report, budget)
    return "\n".join(lines) + "\n"


def failure_lines(report: Report, most: float) -> list[str]:
    """Return the first `most` failures by kind, with place and reason."""
    lines = []
    for kind, failures in summary.failure_groups(report, most):
        lines.append(f"{kind} ({len(failures)})")
        lines += [f"  {location(one)}: {summary.reason(one)}" for one in failures]
    if more := summary.hidden_failures(report, most):
        lines.append(more)
    return lines
