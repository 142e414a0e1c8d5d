"""Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Gauge

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report


class Gauges:
    """Gauges with a prefix, each labelled with `name`, so that files of a folder differ.

    Raises UsageError if the library is missing.
    """

    def __init__(self, prefix: str, name: str) -> None:
        try:
            from prometheus_client import CollectorRegistry
        except ImportError:
            raise UsageError(
                "metrics need the library prometheus-client: pip install 'asyncbatch[metrics]'"
            ) from None
        self._prefix, self._name = prefix, name
        self._registry = CollectorRegistry()

    def set(self, metric: str, help_: str, value: float, **labels: str) -> None:
        """Set one gauge."""
        self._gauge(metric, help_, *labels).labels(self._name, *labels.values()).set(value)

    def set_each(self, metric: str, help_: str, values: Mapping[str, int]) -> None:
        """Set a gauge for each result."""
        gauge = self._gauge(metric, help_, "result")
        for result, value in values.items():
            gauge.labels(self._name, result).set(value)

    def text(self) -> bytes:
        """Return the document."""
        from prometheus_client import generate_latest

        text: bytes = generate_latest(self._registry)
        return text

    def _gauge(self, metric: str, help_: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge

        return Gauge(f"{self._prefix}_{metric}", help_, ("name", *labels), registry=self._registry)


class Metrics:
    """The metrics of a run. Raises UsageError if the library is missing."""

    def __init__(self, name: str) -> None:
        self._gauges = Gauges("asyncbatch_run", name)

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - the report has counted it
        """Return nothing: metrics come when all is done."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        tally, tell = report.tally, self._gauges.set
        started = report.started_at.timestamp()
        tell("info", "The run.", 1, command=command, status=report.status)
        tell("exit_code", "Its exit status.", exit_code)
        tell("started_timestamp_seconds", "When it began.", started)
        tell("ended_timestamp_seconds", "When it ended.", started + report.elapsed_s)
        tell("duration_seconds", "How long it took.", report.elapsed_s)
        self._gauges.set_each("files", "Inputs, by what became of them.", {
            "succeeded": tally.succeeded, "partial": tally.partial, "failed": tally.failed,
            "skipped": tally.skipped,
        })  # fmt: skip
        self._gauges.set_each("records", "Records read, by what became of them.", {
            "passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected,
        })  # fmt: skip
        tell("rows_written", "Rows in the target.", tally.written)
        tell("read_bytes", "What was read.", tally.bytes)
        tell("retries", "What was tried again.", tally.retries)
        tell("peak_memory_bytes", "Of all processes.", report.peak_memory_bytes)
        yield self._gauges.text()
