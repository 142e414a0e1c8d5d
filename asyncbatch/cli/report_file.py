"""Reports written to files, in the form that a file's name asks for."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiofiles
import aiofiles.os

from asyncbatch.cloud.address import is_store_url
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.renderers.junit import Junit
from asyncbatch.renderers.machine import Json, JsonLines
from asyncbatch.renderers.markdown import Markdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.records import BatchPart
    from asyncbatch.renderers import Renderer
    from asyncbatch.report import Report
    from asyncbatch.sinks.atomic import AtomicFile

_FORMS: dict[str, Callable[[], Renderer]] = {".jsonl": JsonLines, ".xml": Junit, ".md": Markdown}


class ReportFile:
    """One report: there whole at the end of the run, or not at all; a device just gets it."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        """Raise UsageError if `path` cannot be written, before any work is done."""
        self._path = path
        self._renderer = _renderer(path)
        self._stream: _LocalStream | _ObjectStream = (
            _ObjectStream(path, stores) if is_store_url(path) else _LocalStream(path)
        )

    async def part(self, found: BatchPart) -> None:
        """Write what the form has to say of these files, if anything yet. Raises SinkError."""
        async with self._naming():
            if data := self._renderer.part(found):
                await self._stream.write(data)

    async def finish(self, report: Report, command: str, exit_code: int) -> None:
        """Write the rest and put the file in its place. Raises SinkError."""
        async with self._naming():
            for data in self._renderer.finish(report, command, exit_code):
                await self._stream.write(data)
            await self._stream.commit()

    async def abandon(self) -> None:
        """Leave nothing of a report that is not going to be finished."""
        await self._stream.discard()

    @asynccontextmanager
    async def _naming(self) -> AsyncIterator[None]:
        """Say of an OSError which file it is about, of which nothing is left then."""
        try:
            yield
        except BrokenPipeError:
            raise  # whoever read our output has gone, which is no trouble of ours
        except OSError as error:
            await self._stream.discard()
            reason = error.strerror or str(error)
            raise SinkError(f"cannot write {self._path}: {reason}", self._path) from None


class _LocalStream:
    """A file, written beside its place and begun with its first bytes. Raises OSError."""

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
            with suppress(OSError):  # what could not be written cannot be flushed either
                await self._stream.close()
        if self._target != self._path:
            with suppress(OSError):
                await aiofiles.os.unlink(self._target)


class _ObjectStream:
    """An object in the place of a file. Raises SinkError."""

    def __init__(self, url: str, stores: StoreSettings | None) -> None:
        from asyncbatch.sinks.files import whole_file  # noqa: PLC0415 - few reports are objects

        self._file: AtomicFile = whole_file(url, stores)
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
    """Return what makes a report of the form that its name asks for. Raises UsageError."""
    name, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".prom":
        from asyncbatch.renderers.metrics import Metrics  # noqa: PLC0415 - few ask for them

        return Metrics(name)
    return _FORMS.get(suffix, Json)()
