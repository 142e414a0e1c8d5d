"""Metrics in the text format of Prometheus."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from asyncbatch.core.records import display_path
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Gauge

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report


class Gauges:
    """A set of gauges whose names begin with `prefix`.

    Each gauge has the label `name`, because Prometheus refuses equal gauges in two files of one
    folder. Raises UsageError if the library is missing.
    """

    def __init__(self, prefix: str, name: str) -> None:
        try:
            from prometheus_client import CollectorRegistry
        except ImportError:
            raise UsageError(
                "metrics need the library prometheus-client: pip install 'asyncbatch[metrics]'"
            ) from None
        self._prefix, self._name = prefix, display_path(name)
        self._registry = CollectorRegistry()

    def set(self, metric: str, help_: str, value: float, **labels: str) -> None:
        """Set one gauge."""
        self._gauge(metric, help_, *labels).labels(self._name, *labels.values()).set(value)

    def set_each(self, metric: str, help_: str, values: Mapping[str, int]) -> None:
        """Set one gauge per result, with the label `result`."""
        gauge = self._gauge(metric, help_, "result")
        for result, value in values.items():
            gauge.labels(self._name, result).set(value)

    def text(self) -> bytes:
        """Return all gauges as text."""
        from prometheus_client import generate_latest

        text: bytes = generate_latest(self._registry)
        return text

    def _gauge(self, metric: str, help_: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge

        return Gauge(f"{self._prefix}_{metric}", help_, ("name", *labels), registry=self._registry)


_LAST_SUCCESS = "last_success_timestamp_seconds"
_LAST_SUCCESS_LINE = re.compile(rb"^asyncbatch_(?:run|stream)_" + _LAST_SUCCESS.encode()
                                + rb"\{[^}]*\} (\S+)$", re.MULTILINE)  # fmt: skip


def read_last_success(path: str) -> float | None:
    """Return the time of the last success in a file of metrics, None without one."""
    try:
        with open(path, "rb") as file:
            found = _LAST_SUCCESS_LINE.search(file.read())
        return None if found is None else float(found[1])
    except (OSError, ValueError):
        return None


def set_last_success(gauges: Gauges, exit_code: int | None, before: float | None) -> None:
    """Set the time of the last success: now, or that of an earlier run."""
    value = time.time() if exit_code == 0 else before
    if value is not None:
        gauges.set(_LAST_SUCCESS, "Time at which a run last ended with exit status 0.", value)


class Metrics:
    """A renderer of the metrics of a run. Raises UsageError if the library is missing.

    `last_success` is the time of the last success of an earlier run.
    """

    def __init__(self, name: str, last_success: float | None = None) -> None:
        self._gauges, self._last_success = Gauges("asyncbatch_run", name), last_success

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the metrics."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        tally, gauge = report.tally, self._gauges.set
        started = report.started_at.timestamp()
        gauge("info", "Command and status of the run.", 1, command=command, status=report.status)
        gauge("exit_code", "Exit status of the run.", exit_code)
        gauge("started_timestamp_seconds", "Time at which the run began.", started)
        gauge("ended_timestamp_seconds", "Time at which the run ended.", started + report.elapsed_s)
        set_last_success(self._gauges, exit_code, self._last_success)
        gauge("duration_seconds", "Duration of the run.", report.elapsed_s)
        self._gauges.set_each("files", "Inputs, by result.", {
            "succeeded": tally.succeeded, "partial": tally.partial, "failed": tally.failed,
            "skipped": tally.skipped,
        })  # fmt: skip
        self._gauges.set_each("records", "Records read, by result.", {
            "passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected,
        })  # fmt: skip
        gauge("rows_written", "Rows that the target accepted.", tally.written)
        gauge("read_bytes", "Bytes read from all inputs.", tally.bytes)
        gauge("retries", "Number of retries.", tally.retries)
        gauge("peak_memory_bytes", "Peak memory of all processes.", report.peak_memory_bytes)
        yield self._gauges.text()
