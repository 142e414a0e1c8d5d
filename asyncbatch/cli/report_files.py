"""The report files of runs and streams."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiofiles
import aiofiles.os

from asyncbatch.cli.render.json import JsonLines, JsonReport
from asyncbatch.cli.render.junit import Junit
from asyncbatch.cli.render.markdown import Markdown
from asyncbatch.cli.render.prometheus import Gauges, read_last_success, set_last_success
from asyncbatch.core.paths import is_store_url
from asyncbatch.core.records import display_path
from asyncbatch.core.report import SCHEMA_VERSION, Report
from asyncbatch.core.system import Memory
from asyncbatch.core.tally import StreamTally
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

    from asyncbatch.cli.render import Renderer
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.pipeline.stream.run import StreamSnapshot

# The beginnings of the files that this module writes.
_BEGINNINGS = (
    b'{"schema_version":',
    b'{"event":"file"',
    b'{"event":"failure"',
    b'{"event":"summary"',
    b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="asyncbatch"',
    b"### asyncbatch ",
    b"# HELP asyncbatch_",
)


def is_replaceable(path: str) -> bool:
    """Whether a report of a run that could not begin may be written to a path.

    It is absent, or a report. Anything else may be an input: that may be why the run did not begin.
    """
    if is_store_url(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(max(map(len, _BEGINNINGS))).startswith(_BEGINNINGS)
    except FileNotFoundError:
        return True
    except OSError:
        return False


async def write_failed_reports(
    paths: Sequence[str], command: str, error: str, exit_code: int
) -> None:
    """Write reports of a run that could not begin, as far as they can be written."""
    report = Report(error=display_path(error))
    for path in filter(is_replaceable, paths):
        with suppress(SinkError, UsageError, OSError):
            if command == "stream":
                StreamReport(path).fail(error, exit_code)
            else:
                await ReportFile(path).finish(report, command, exit_code)


_RENDERERS: dict[str, Callable[[], Renderer]] = {
    ".jsonl": JsonLines,
    ".xml": Junit,
    ".md": Markdown,
}


class ReportFile:
    """One report file of a run. It appears only when it is complete.

    Call `part` for each part, then `finish` or `abandon` once. A device is written directly.
    """

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        """Check that `path` can be written. Raises UsageError."""
        self._path = path
        self._renderer = _renderer(path)
        self._stream: _LocalStream | _ObjectStream = (
            _ObjectStream(path, stores) if is_store_url(path) else _LocalStream(path)
        )

    @property
    def is_replaceable(self) -> bool:
        """Whether there is no file yet, or an earlier report."""
        return is_replaceable(self._path)

    async def part(self, found: BatchPart) -> None:
        """Write the outcome of some files, if the format lists files. Raises SinkError."""
        async with self._discard_on_error():
            if data := self._renderer.part(found):
                await self._stream.write(data)

    async def finish(self, report: Report, command: str, exit_code: int) -> None:
        """Write the rest and move the file to its path. Raises SinkError."""
        async with self._discard_on_error():
            for data in self._renderer.finish(report, command, exit_code):
                await self._stream.write(data)
            await self._stream.commit()

    async def abandon(self) -> None:
        """Remove the unfinished file."""
        await self._stream.discard()

    @asynccontextmanager
    async def _discard_on_error(self) -> AsyncIterator[None]:
        """Remove the unfinished file on an OSError. Raises SinkError with its path."""
        try:
            yield
        except BrokenPipeError:
            raise  # the reader closed the pipe, which is not an error of the run
        except OSError as error:
            await self._stream.discard()
            reason = error.strerror or str(error)
            raise SinkError(f"cannot write {self._path}: {reason}", self._path) from None


class _LocalStream:
    """A local file, written under a temporary name and then renamed.

    The temporary file is created at the first write. Methods raise OSError.
    """

    def __init__(self, path: str) -> None:
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise UsageError(f"--report: cannot write {path}: no such folder, or not writable")
        special = os.path.exists(path) and not os.path.isfile(path)
        self._path = path
        self._target = path if special else f"{path}.{os.getpid()}.tmp"
        self._stream: AsyncBufferedIOBase | None = None

    async def write(self, data: bytes) -> None:
        if self._stream is None:
            self._stream = await aiofiles.open(self._target, "wb")
        await self._stream.write(data)

    async def commit(self) -> None:
        if self._stream is not None:
            await self._stream.close()
        if self._target != self._path:
            await aiofiles.os.replace(self._target, self._path)

    async def discard(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # closing flushes the buffer, which fails again
                await self._stream.close()
        if self._target != self._path:
            with suppress(OSError):
                await aiofiles.os.unlink(self._target)


class _ObjectStream:
    """An object of a store. Methods raise SinkError."""

    def __init__(self, url: str, stores: StoreSettings | None) -> None:
        from asyncbatch.storage.opener import open_output

        self._file: AtomicFile = open_output(url, stores)
        try:
            self._file.open()
        except UsageError as error:
            raise UsageError(f"--report: {error}") from None

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._file.write, data)

    async def commit(self) -> None:
        await asyncio.to_thread(self._file.commit)

    async def discard(self) -> None:
        await asyncio.to_thread(self._file.discard)


def _renderer(path: str) -> Renderer:
    """Return the renderer for the ending of a file name. Raises UsageError."""
    name, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".prom":
        from asyncbatch.cli.render.prometheus import Metrics

        return Metrics(name, read_last_success(path))
    return _RENDERERS.get(suffix, JsonReport)()


_METRICS_SECONDS = 5.0  # between two writes of metrics while the stream runs


class StreamReport:
    """One report file of a stream: metrics (.prom) or the report object.

    Each write replaces the whole file. Metrics are also written while the stream runs.
    """

    def __init__(self, path: str) -> None:
        """Check that `path` can be written, and its ending. Raises UsageError."""
        self._name, suffix = os.path.splitext(os.path.basename(path))
        if suffix in (".xml", ".md", ".jsonl"):
            raise UsageError(
                f"--report {path}: a stream has no report of this format: write .json or .prom"
            )
        folder = os.path.dirname(path) or "."
        if "://" in path or os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise UsageError(f"--report: cannot write {path}: no such folder, or not writable")
        self._path, self._is_metrics = path, suffix == ".prom"
        self._started = datetime.now(UTC)
        self._written, self._last_success = 0.0, None
        if self._is_metrics:
            self._last_success = read_last_success(path)
            Gauges("", self._name)  # raises UsageError now, not later, if the library is missing

    def show(self, snapshot: StreamSnapshot) -> None:
        """Write metrics if the last write is old enough. Raises SinkError, UsageError."""
        if self._is_metrics and time.monotonic() - self._written >= _METRICS_SECONDS:
            self._written = time.monotonic()
            self._write(self._metrics(snapshot, None))

    def finish(
        self, snapshot: StreamSnapshot, exit_code: int, *, stopped: bool, error: str | None = None
    ) -> None:
        """Write the final report. Raises SinkError, UsageError.

        `error` is the reason why the stream could not begin, or not go on.
        """
        if self._is_metrics:
            self._write(self._metrics(snapshot, exit_code))
        else:
            report = self._report_object(snapshot, exit_code, stopped=stopped)
            if error is not None:
                report |= {"status": "failed", "error": display_path(error)}
            self._write(encode(report) + b"\n")

    def fail(self, error: str, exit_code: int) -> None:
        """Write the report of a stream that could not begin. Raises SinkError, UsageError."""
        from asyncbatch.pipeline.stream.run import StreamSnapshot

        nothing = StreamSnapshot(StreamTally(), 0, 0, 0.0, None, Memory(0, 0))
        self.finish(nothing, exit_code, stopped=False, error=error)

    def _write(self, data: bytes) -> None:
        file = AtomicFile(self._path)
        file.open()
        file.write(data)
        file.commit()

    def _metrics(self, snapshot: StreamSnapshot, exit_code: int | None) -> bytes:
        gauges, tally = Gauges("asyncbatch_stream", self._name), snapshot.tally
        gauge = gauges.set
        gauge("running", "1 while the stream runs, else 0.", exit_code is None)
        if exit_code is not None:
            gauge("exit_code", "Exit status of the stream.", exit_code)
        started = self._started.timestamp()
        gauge("started_timestamp_seconds", "Time at which this run of the stream began.", started)
        set_last_success(gauges, exit_code, self._last_success)
        gauge("updated_timestamp_seconds", "Time at which these metrics were written.", time.time())
        gauges.set_each("events", "Events read, by result.", _event_counts(snapshot))
        gauge("losses", "Number of times that a source could not be read.", tally.lost)
        gauge("windows", "Closed windows, counted once for each key.", tally.windows)
        gauge("windows_refused", "Windows that the target refused.", tally.refused)
        gauge("read_bytes", "Bytes read from all sources.", tally.bytes)
        if snapshot.lag is not None:
            lag_s = snapshot.lag / 1e6  # from microseconds
            gauge("watermark_lag_seconds", "Distance of the watermark to the clock.", lag_s)
        gauge("memory_bytes", "Memory of all processes.", snapshot.memory.current)
        gauge("peak_memory_bytes", "Peak memory of all processes.", snapshot.memory.peak)
        return gauges.text()

    def _report_object(
        self, snapshot: StreamSnapshot, exit_code: int, *, stopped: bool
    ) -> dict[str, Any]:
        tally, seconds = snapshot.tally, snapshot.elapsed_s
        failures = [*tally.rejections, *tally.losses]
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "stream",
            "status": "stopped" if stopped else "ended",
            "started_at": self._started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "elapsed_s": round(seconds, 3),
            "events": {
                "read": tally.read, **_event_counts(snapshot), "late_in_part": tally.late_in_part,
            },
            "left": snapshot.left,
            "losses": tally.lost,
            "windows": {"over": tally.windows, "refused": tally.refused},
            "rates": {
                "events_per_s": round(snapshot.read / seconds, 1) if seconds else 0.0,
                "bytes_per_s": round(snapshot.bytes / seconds, 1) if seconds else 0.0,
            },
            "peak_memory_bytes": snapshot.memory.peak,
            "failures": failures,
            "failures_omitted": tally.rejected + tally.lost - len(failures),
            "failure_kinds": dict(sorted(tally.kinds.items())),
            "exit_code": exit_code,
            **({"notes": tally.notes} if tally.notes else {}),
        }  # fmt: skip


def _event_counts(snapshot: StreamSnapshot) -> dict[str, int]:
    tally = snapshot.tally
    return {
        "in_windows": tally.events, "late": tally.late, "rejected": tally.rejected,
        "dropped": tally.dropped,
    }  # fmt: skip
