"""Metrics in Prometheus' text form, as its node exporter reads them from a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Gauge

    from asyncbatch.records import BatchPart
    from asyncbatch.report import Report


class Metrics:
    """Gauges of one run, each with its `name`: files of one folder must not tell the same series.

    Raises UsageError if the library is missing.
    """

    def __init__(self, name: str) -> None:
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 - only if asked for
        except ImportError:
            raise UsageError(
                "metrics need the library prometheus-client: pip install 'asyncbatch[metrics]'"
            ) from None
        self._name = name
        self._registry = CollectorRegistry()

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - the report has counted it
        """Return nothing: metrics come when all is done."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        from prometheus_client import generate_latest  # noqa: PLC0415 - see above

        tally = report.tally
        started = report.started_at.timestamp()
        self._tell("info", "The run.", 1, command=command, status=report.status)
        self._tell("exit_code", "Its exit status.", exit_code)
        self._tell("started_timestamp_seconds", "When it began.", started)
        self._tell("ended_timestamp_seconds", "When it ended.", started + report.elapsed_s)
        self._tell("duration_seconds", "How long it took.", report.elapsed_s)
        self._tell_each("files", "Inputs, by what became of them.", {
            "succeeded": tally.succeeded, "partial": tally.partial, "failed": tally.failed,
            "skipped": tally.skipped,
        })  # fmt: skip
        self._tell_each("records", "Records read, by what became of them.", {
            "passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected,
        })  # fmt: skip
        self._tell("rows_written", "Rows in the target.", tally.written)
        self._tell("read_bytes", "What was read.", tally.bytes)
        self._tell("retries", "What was tried again.", tally.retries)
        self._tell("peak_memory_bytes", "Of all processes.", report.peak_memory_bytes)
        yield generate_latest(self._registry)

    def _tell(self, what: str, help_: str, value: float, **labels: str) -> None:
        self._gauge(what, help_, *labels).labels(self._name, *labels.values()).set(value)

    def _tell_each(self, what: str, help_: str, values: dict[str, int]) -> None:
        gauge = self._gauge(what, help_, "result")
        for result, value in values.items():
            gauge.labels(self._name, result).set(value)

    def _gauge(self, what: str, help_: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge  # noqa: PLC0415 - see above

        return Gauge(f"asyncbatch_run_{what}", help_, ("name", *labels), registry=self._registry)
