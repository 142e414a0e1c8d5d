"""Metrics in the text format of Prometheus."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from asyncbatch.cli.observers.base import RunObserver
from asyncbatch.core.records import display_path
from asyncbatch.core.report import Report, StreamReport
from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import Gauge, Metric

    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.report import AnyReport


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
                f"metrics need the library prometheus-client: {install_command('metrics')}"
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

    def collect(self) -> Iterable[Metric]:
        """Return all gauges as the library has them."""
        collected: Iterable[Metric] = self._registry.collect()
        return collected

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


class Metrics:
    """A renderer of the metrics of a run or stream. Raises UsageError if the library is missing.

    `last_success` is the time of the last success of an earlier run.
    """

    def __init__(self, name: str, last_success: float | None = None) -> None:
        self._name, self._last_success = name, last_success
        self._was_running = False  # whether metrics of a run that goes on were written
        Gauges("", name)  # raises the error now, not at the end

    def part(self, found: Outcomes) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the metrics."""
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        if isinstance(report, StreamReport):
            yield self.stream_metrics(report, exit_code)
        else:
            yield self.run_gauges(report, command, exit_code).text()

    def running_metrics(self, report: Report, command: str) -> bytes:
        """Return the metrics of a run that goes on, without an end."""
        self._was_running = True
        return self.run_gauges(report, command, None).text()

    def run_gauges(self, report: Report, command: str, exit_code: int | None) -> Gauges:
        """Return the metrics of a run; `exit_code` is None while it goes on."""
        tally, gauges = report.tally, Gauges("asyncbatch_run", self._name)
        gauge, started = gauges.set, report.started_at.timestamp()
        gauge("info", "Command and status of the run.", 1, command=command, status=report.status)
        if self._was_running or exit_code is None:
            gauge("running", "1 while the run watches folders, else 0.", exit_code is None)
            gauge("updated_timestamp_seconds", "Time at which these metrics were written.",
                  time.time())  # fmt: skip
        gauge("started_timestamp_seconds", "Time at which the run began.", started)
        if exit_code is not None:
            ended = started + report.elapsed_s
            gauge("exit_code", "Exit status of the run.", exit_code)
            gauge("ended_timestamp_seconds", "Time at which the run ended.", ended)
        self._add_last_success(gauges, report, exit_code)
        gauge("duration_seconds", "Duration of the run.", report.elapsed_s)
        gauges.set_each("files", "Inputs, by result.", {
            "succeeded": tally.succeeded, "partial": tally.partial, "failed": tally.failed,
            "skipped": tally.skipped,
        })  # fmt: skip
        gauges.set_each("records", "Records read, by result.", {
            "passed": tally.passed, "dropped": tally.dropped, "rejected": tally.rejected,
        })  # fmt: skip
        gauge("rows_written", "Rows that the target accepted.", tally.written)
        gauge("read_bytes", "Bytes read from all inputs.", tally.bytes)
        gauge("retries", "Number of retries.", tally.retries)
        gauge("peak_memory_bytes", "Peak memory of all processes.", report.peak_memory_bytes)
        return gauges

    def stream_metrics(self, report: StreamReport, exit_code: int | None) -> bytes:
        """Return the metrics of a stream; `exit_code` is None while it runs."""
        tally, gauges = report.tally, Gauges("asyncbatch_stream", self._name)
        gauge, started = gauges.set, report.started_at.timestamp()
        gauge("running", "1 while the stream runs, else 0.", exit_code is None)
        if exit_code is not None:
            gauge("exit_code", "Exit status of the stream.", exit_code)
        gauge("started_timestamp_seconds", "Time at which this run of the stream began.", started)
        self._add_last_success(gauges, report, exit_code)
        gauge("updated_timestamp_seconds", "Time at which these metrics were written.", time.time())
        gauges.set_each("events", "Events read, by result.", {
            "in_windows": tally.events, "late": tally.late, "rejected": tally.rejected,
            "dropped": tally.dropped,
        })  # fmt: skip
        gauge("losses", "Number of times that a source could not be read.", tally.lost)
        gauge("windows", "Closed windows, counted once for each key.", tally.windows)
        gauge("windows_refused", "Windows that the target refused.", tally.refused)
        gauge("read_bytes", "Bytes read from all sources.", tally.bytes)
        gauge("retries", "Number of retries.", tally.retries)
        if report.lag is not None:
            lag_s = report.lag / 1e6  # from microseconds
            gauge("watermark_lag_seconds", "Distance of the watermark to the clock.", lag_s)
        gauge("memory_bytes", "Memory of all processes.", report.memory.current)
        gauge("peak_memory_bytes", "Peak memory of all processes.", report.memory.peak)
        return gauges.text()

    def _add_last_success(self, gauges: Gauges, report: AnyReport, exit_code: int | None) -> None:
        """Add the time of the last success: now, or that of an earlier moment or run.

        A run that goes on succeeds as long as it has no failure: it may never end.
        """
        if not report.has_failed(None) if exit_code is None else exit_code == 0:
            self._last_success = time.time()
        if self._last_success is not None:
            help_ = "Time at which a run last ended, or went on, without a failure."
            gauges.set(_LAST_SUCCESS, help_, self._last_success)


class MetricsServer(RunObserver):
    """An observer that serves the metrics of a run that goes on, on this machine only.

    A daemon thread answers, with nothing before the run begins. Raises UsageError if
    the library is missing or the port is taken.
    """

    def __init__(self, port: int, command: str) -> None:
        self._metrics, self._command = Metrics(command), command
        self._report: Report | None = None
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(port, "127.0.0.1", registry)
        except (OSError, OverflowError) as error:
            raise UsageError(f"--metrics-port {port}: {error}") from None

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this moment."""
        if self._report is None:
            return ()
        return self._metrics.run_gauges(self._report, self._command, None).collect()

    def begin(self, report: AnyReport) -> None:
        """Take the report."""
        assert isinstance(report, Report)
        self._report = report

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:  # noqa: ARG002 - as observers have it
        """Answer no more."""
        self._server.server_close()
