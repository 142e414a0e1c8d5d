"""Write report files."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiofiles
import aiofiles.os

from asyncbatch.cli.render.json import Json, JsonLines
from asyncbatch.cli.render.junit import Junit
from asyncbatch.cli.render.markdown import Markdown
from asyncbatch.cli.render.prometheus import Gauges
from asyncbatch.core.paths import is_store_url
from asyncbatch.core.report import SCHEMA_VERSION
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

    from asyncbatch.cli.render import Renderer
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report
    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.pipeline.stream.run import StreamSnapshot

_RENDERERS: dict[str, Callable[[], Renderer]] = {
    ".jsonl": JsonLines,
    ".xml": Junit,
    ".md": Markdown,
}


class ReportFile:
    """One report: complete at the end of the run, or not there at all.

    A device is written directly.
    """

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        """Raise UsageError if `path` cannot be written, before any work is done."""
        self._path = path
        self._renderer = _renderer(path)
        self._stream: _LocalStream | _ObjectStream = (
            _ObjectStream(path, stores) if is_store_url(path) else _LocalStream(path)
        )

    async def part(self, found: BatchPart) -> None:
        """Write the part of the report about these files, if the form has one. Raises SinkError."""
        async with self._discard_on_error():
            if data := self._renderer.part(found):
                await self._stream.write(data)

    async def finish(self, report: Report, command: str, exit_code: int) -> None:
        """Write the rest and put the file in its place. Raises SinkError."""
        async with self._discard_on_error():
            for data in self._renderer.finish(report, command, exit_code):
                await self._stream.write(data)
            await self._stream.commit()

    async def abandon(self) -> None:
        """Leave nothing of a report that is not going to be finished."""
        await self._stream.discard()

    @asynccontextmanager
    async def _discard_on_error(self) -> AsyncIterator[None]:
        """Name the file in an OSError, and remove the unfinished file."""
        try:
            yield
        except BrokenPipeError:
            raise  # the reader has gone, which is no error of the run
        except OSError as error:
            await self._stream.discard()
            reason = error.strerror or str(error)
            raise SinkError(f"cannot write {self._path}: {reason}", self._path) from None


class _LocalStream:
    """A file that is written beside its place, from its first bytes on. Raises OSError."""

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
            with suppress(OSError):  # a buffer that failed to be written fails again at the flush
                await self._stream.close()
        if self._target != self._path:
            with suppress(OSError):
                await aiofiles.os.unlink(self._target)


class _ObjectStream:
    """An object in the place of a file. Raises SinkError."""

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
    """Return the renderer for a file name's ending. Raises UsageError."""
    name, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".prom":
        from asyncbatch.cli.render.prometheus import Metrics

        return Metrics(name)
    return _RENDERERS.get(suffix, Json)()


_METRICS_SECONDS = 5.0  # time between two writes of metrics while the stream runs


class StreamReport:
    """One file, replaced whole: by metrics now and then, by either form at the end."""

    def __init__(self, path: str) -> None:
        """Raise UsageError if `path` cannot be written, or has an unknown ending."""
        self._name, suffix = os.path.splitext(os.path.basename(path))
        if suffix in (".xml", ".md", ".jsonl"):
            raise UsageError(
                f"--report {path}: a stream has no report of that form: write .json or .prom"
            )
        folder = os.path.dirname(path) or "."
        if "://" in path or os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise UsageError(f"--report: cannot write {path}: no such folder, or not writable")
        self._path, self._is_metrics = path, suffix == ".prom"
        self._started = datetime.now(UTC)
        self._written = 0.0
        if self._is_metrics:
            Gauges("", self._name)  # raises now if a library is missing

    def show(self, snapshot: StreamSnapshot) -> None:
        """Write metrics, if it is time. Raises SinkError, UsageError."""
        if self._is_metrics and time.monotonic() - self._written >= _METRICS_SECONDS:
            self._written = time.monotonic()
            self._write(self._metrics(snapshot, None))

    def finish(self, snapshot: StreamSnapshot, exit_code: int, *, stopped: bool) -> None:
        """Write the whole. Raises SinkError, UsageError."""
        if self._is_metrics:
            self._write(self._metrics(snapshot, exit_code))
        else:
            self._write(encode(self._report_object(snapshot, exit_code, stopped=stopped)) + b"\n")

    def _write(self, data: bytes) -> None:
        file = AtomicFile(self._path)
        file.open()
        file.write(data)
        file.commit()

    def _metrics(self, snapshot: StreamSnapshot, exit_code: int | None) -> bytes:
        gauges, tally = Gauges("asyncbatch_stream", self._name), snapshot.tally
        tell = gauges.set
        tell("running", "Whether it goes on.", exit_code is None)
        if exit_code is not None:
            tell("exit_code", "Its exit status.", exit_code)
        tell("started_timestamp_seconds", "When this run of it began.", self._started.timestamp())
        tell("updated_timestamp_seconds", "When this was written.", time.time())
        gauges.set_each("events", "Events read, by what became of them.", _event_counts(snapshot))
        tell("losses", "How often something of a source could not be read.", tally.lost)
        tell("windows", "Windows that are over, one for each key.", tally.windows)
        tell("windows_refused", "Windows that the target would not have.", tally.refused)
        tell("read_bytes", "What was read.", tally.bytes)
        if snapshot.lag is not None:
            tell(
                "watermark_lag_seconds", "How far the time of events is behind.", snapshot.lag / 1e6
            )
        tell("memory_bytes", "Of all processes.", snapshot.memory.current)
        tell("peak_memory_bytes", "Of all processes.", snapshot.memory.peak)
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
            "exit_code": exit_code,
        }  # fmt: skip


def _event_counts(snapshot: StreamSnapshot) -> dict[str, int]:
    tally = snapshot.tally
    return {
        "in_windows": tally.events, "late": tally.late, "rejected": tally.rejected,
        "dropped": tally.dropped,
    }  # fmt: skip
