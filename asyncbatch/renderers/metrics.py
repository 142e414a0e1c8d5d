"""A run as metrics: see `gauges`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.renderers.gauges import Gauges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.records import BatchPart
    from asyncbatch.report import Report


class Metrics:
    """What a run came to. Raises UsageError if the library is missing."""

    def __init__(self, name: str) -> None:
        self._gauges = Gauges("asyncbatch_run", name)

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - the report has counted it
        """Return nothing: metrics come when all is done."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        tally, tell = report.tally, self._gauges.tell
        started = report.started_at.timestamp()
        tell("info", "The run.", 1, command=command, status=report.status)
        tell("exit_code", "Its exit status.", exit_code)
        tell("started_timestamp_seconds", "When it began.", started)
        tell("ended_timestamp_seconds", "When it ended.", started + report.elapsed_s)
        tell("duration_seconds", "How long it took.", report.elapsed_s)
        self._gauges.tell_each("files", "Inputs, by what became of them.", {
            "succeeded": tally.succeeded, "partial": tally.partial, "failed": tally.failed,
            "skipped": tally.skipped,
        })  # fmt: skip
        self._gauges.tell_each("records", "Records read, by what became of them.", {
            "passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected,
        })  # fmt: skip
        tell("rows_written", "Rows in the target.", tally.written)
        tell("read_bytes", "What was read.", tally.bytes)
        tell("retries", "What was tried again.", tally.retries)
        tell("peak_memory_bytes", "Of all processes.", report.peak_memory_bytes)
        yield self._gauges.text()
