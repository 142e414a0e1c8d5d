"""Reports written to files, in the form that a file's name asks for."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiofiles
import aiofiles.os

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.renderers.junit import Junit
from asyncbatch.renderers.machine import Json, JsonLines
from asyncbatch.renderers.markdown import Markdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

    from asyncbatch.records import BatchPart
    from asyncbatch.renderers import Renderer
    from asyncbatch.report import Report

_FORMS: dict[str, Callable[[], Renderer]] = {".jsonl": JsonLines, ".xml": Junit, ".md": Markdown}


class ReportFile:
    """One report: there whole at the end of the run, or not at all; a device just gets it."""

    def __init__(self, path: str) -> None:
        """Raise UsageError if `path` cannot be written, before any work is done."""
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise UsageError(f"--report: cannot write {path}: no such folder, or not writable")
        self._path = path
        special = os.path.exists(path) and not os.path.isfile(path)
        self._target = path if special else f"{path}.{os.getpid()}.tmp"
        self._renderer = _renderer(path)
        self._stream: AsyncBufferedIOBase | None = None

    async def part(self, found: BatchPart) -> None:
        """Write what the form has to say of these files, if anything yet. Raises SinkError."""
        async with self._naming():
            if data := self._renderer.part(found):
                await self._write(data)

    async def finish(self, report: Report, command: str, exit_code: int) -> None:
        """Write the rest and put the file in its place. Raises SinkError."""
        async with self._naming():
            for data in self._renderer.finish(report, command, exit_code):
                await self._write(data)
            if self._stream is not None:
                await self._stream.close()
            if self._target != self._path:
                await aiofiles.os.replace(self._target, self._path)

    @asynccontextmanager
    async def _naming(self) -> AsyncIterator[None]:
        """Say of an OSError which file it is about, of which nothing is left then."""
        try:
            yield
        except BrokenPipeError:
            raise  # whoever read our output has gone, which is no trouble of ours
        except OSError as error:
            if self._stream is not None:
                with suppress(OSError):  # what could not be written cannot be flushed either
                    await self._stream.close()
            if self._target != self._path:
                with suppress(OSError):
                    await aiofiles.os.unlink(self._target)
            reason = error.strerror or str(error)
            raise SinkError(f"cannot write {self._path}: {reason}", self._path) from None

    async def _write(self, data: bytes) -> None:
        if self._stream is None:
            self._stream = await aiofiles.open(self._target, "wb")
        await self._stream.write(data)


def _renderer(path: str) -> Renderer:
    """Return what makes a report of the form that its name asks for. Raises UsageError."""
    name, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".prom":
        from asyncbatch.renderers.metrics import Metrics  # noqa: PLC0415 - few ask for them

        return Metrics(name)
    return _FORMS.get(suffix, Json)()
