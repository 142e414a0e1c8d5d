"""The report files of all commands."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import aiofiles
import aiofiles.os
from msgspec.structs import replace

from asyncbatch.cli.render import SamplingRenderer
from asyncbatch.cli.render.findings import (
    GITLAB_BEGINNINGS,
    SARIF_BEGINNING,
    GitlabQuality,
    Sarif,
    failure_limit,
)
from asyncbatch.cli.render.json import JsonLines, JsonReport
from asyncbatch.cli.render.junit import Junit
from asyncbatch.cli.render.markdown import Markdown
from asyncbatch.cli.render.prometheus import Metrics, read_last_success
from asyncbatch.core.paths import is_store_url
from asyncbatch.core.records import display_path
from asyncbatch.core.report import Report, StreamReport, process_run_id
from asyncbatch.errors import AsyncbatchError, SinkError, UsageError
from asyncbatch.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

    from asyncbatch.cli.render import Outcomes, Renderer
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.settings import StoreSettings

# The beginnings of the files that this module writes.
_BEGINNINGS = (
    b'{"schema_version":',
    b'{"event":"file"',
    b'{"event":"failure"',
    b'{"event":"window"',
    b'{"event":"summary"',
    SARIF_BEGINNING,
    *GITLAB_BEGINNINGS,
    b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="asyncbatch"',
    b"### asyncbatch ",
    b"# HELP asyncbatch_",
    b"<!DOCTYPE html>\n<!-- A report of asyncbatch ",
)


def is_replaceable(path: str) -> bool:
    """Whether a report of a run that could not begin may be written to a path.

    It is absent, or a report. Anything else may be an input: that may be why the run did not begin.
    A pipe or a device has nothing to lose, and a read of it would wait.
    """
    if is_store_url(path) or os.path.isdir(path):
        return False
    if os.path.exists(path) and not os.path.isfile(path):
        return True
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
    kind = StreamReport if command == "stream" else Report
    report = kind(error=display_path(error), run_id=process_run_id())
    for path in filter(is_replaceable, paths):
        with suppress(SinkError, UsageError, OSError):
            await ReportFile(path, command=command).finish(report, command, exit_code)


def _make_html() -> Renderer:
    from asyncbatch.cli.render.html import Html

    return Html()


# By the ending of the file. A file without an ending, for instance a pipe, gets the JSON object.
_RENDERERS: dict[str, Callable[[], Renderer]] = {
    "": JsonReport,
    ".gitlab.json": GitlabQuality,
    ".html": _make_html,
    ".json": JsonReport,
    ".jsonl": JsonLines,
    ".md": Markdown,
    ".sarif": Sarif,
    ".xml": Junit,
}
_OF_FILES = {".xml": "test cases of JUnit", ".sarif": "results", ".gitlab.json": "entries"}


_METRICS_SECONDS = 5.0  # between two writes of metrics while a stream runs
_REWRITE_SHARE = 20  # a report is written again only after twenty times the time that it took


class ReportFile:
    """One report file of a run or stream. It appears only when it is complete.

    Call `part` for each part, then `finish` or `abandon` once. A device is written directly.
    """

    def __init__(
        self, path: str, stores: StoreSettings | None = None, *, command: str = "run"
    ) -> None:
        """Check that `path` can be written, and its ending. Raises UsageError."""
        self._path = path
        self._renderer = _renderer(path, command)
        self._last_update = -_METRICS_SECONDS
        self._rewrite_seconds = 0.0  # of the last `rewrite`
        self._lists_parts = False  # whether the format has an entry for each file
        self._is_finished = False
        self._replace_lock = threading.Lock()  # for `rewrite`, whose thread may outlast its task
        self._stream: _LocalStream | _ObjectStream = (
            _ObjectStream(path, stores) if is_store_url(path) else _LocalStream(path)
        )

    @property
    def is_replaceable(self) -> bool:
        """Whether there is no file yet, or an earlier report."""
        return is_replaceable(self._path)

    @property
    def failure_limit(self) -> int:
        """The number of failures that the format lists."""
        return failure_limit(self._renderer)

    @property
    def lists_events(self) -> bool:
        """Whether the format has a line for each failure."""
        return isinstance(self._renderer, JsonLines)

    @property
    def shows_settings(self) -> bool:
        """Whether the format has the settings of the run or stream."""
        return isinstance(self._renderer, SamplingRenderer)

    def update(self, report: AnyReport) -> None:
        """Take note of a run or stream that goes on.

        Metrics of a stream are written, if the last write is old enough.
        """
        if isinstance(self._renderer, SamplingRenderer):
            self._renderer.update(report)
        if not isinstance(self._renderer, Metrics) or not isinstance(report, StreamReport):
            return
        if is_store_url(self._path) or time.monotonic() - self._last_update < _METRICS_SECONDS:
            return
        self._last_update = time.monotonic()
        file = AtomicFile(self._path)
        with suppress(AsyncbatchError):  # if the error persists, `finish` raises it
            file.open()
            file.write(self._renderer.stream_metrics(report, None))
            file.commit()

    async def rewrite(self, report: Report, command: str, exit_code: int) -> None:
        """Write the report of a run that goes on without an end, if the last write is old enough.

        `exit_code` is the exit status if it ended now. A format that lists files is written at the
        end only, and so is an object, a pipe or a device. If an error persists, `finish` raises it.
        """
        seconds = max(_METRICS_SECONDS, _REWRITE_SHARE * self._rewrite_seconds)
        began = time.monotonic()
        if began - self._last_update < seconds or not self._may_be_replaced:
            return
        await asyncio.to_thread(self._replace, self._render_now(report, command, exit_code))
        self._last_update = time.monotonic()
        self._rewrite_seconds = self._last_update - began

    @property
    def _may_be_replaced(self) -> bool:
        is_special = os.path.exists(self._path) and not os.path.isfile(self._path)
        return not (self._lists_parts or is_special or is_store_url(self._path))

    def _replace(self, data: bytes) -> None:
        """Replace the file, unless the last report is there already."""
        unfinished = f"{self._path}.now.{os.getpid()}.tmp"
        with self._replace_lock, suppress(OSError):
            if self._is_finished:
                return
            try:
                with open(unfinished, "wb") as file:
                    file.write(data)
                os.replace(unfinished, self._path)
            except OSError:
                os.unlink(unfinished)

    def _render_now(self, report: Report, command: str, exit_code: int) -> bytes:
        """Return the document about a run that goes on."""
        if isinstance(self._renderer, Metrics):
            return self._renderer.running_metrics(report, command)
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        notes = [*report.notes, f"the run goes on: this is its state of {now} UTC"]
        # A renderer finishes once, and this one has the real end before it.
        renderer = deepcopy(self._renderer)
        return b"".join(renderer.finish(replace(report, notes=notes), command, exit_code))

    async def part(self, found: Outcomes) -> None:
        """Write the outcome of some files, if the format lists files. Raises SinkError."""
        async with self._discard_on_error():
            if data := self._renderer.part(found):
                self._lists_parts = True
                await self._stream.write(data)

    async def finish(self, report: AnyReport, command: str, exit_code: int) -> None:
        """Write the rest and move the file to its path. Raises SinkError."""
        with self._replace_lock:  # held by a thread for as long as a small file takes
            self._is_finished = True
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


def _renderer(path: str, command: str) -> Renderer:
    """Return the renderer for the ending of a file name. Raises UsageError."""
    name, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".prom":
        return Metrics(name, read_last_success(path))
    if path.endswith(".gitlab.json"):
        suffix = ".gitlab.json"
    if command == "stream" and suffix in _OF_FILES:
        raise UsageError(
            f"--report {path}: a stream has no files to be {_OF_FILES[suffix]}: write .html, "
            ".json, .jsonl, .md or .prom"
        )
    if suffix not in _RENDERERS:
        endings = [
            one for one in (*_RENDERERS, ".prom") if command != "stream" or one not in _OF_FILES
        ]
        known = ", ".join(filter(None, sorted(endings)))
        raise UsageError(f"--report {path}: unknown ending {suffix}: write one of {known}")
    return _RENDERERS[suffix]()
