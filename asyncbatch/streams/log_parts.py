"""The files of a log, opened: which of them holds a place, and which come after it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncbatch.codec.compression import CorruptArchiveError, named
from asyncbatch.streams.file_reading import FileReading
from asyncbatch.streams.live_file import LiveFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.streams.rotation import LogFile
    from asyncbatch.streams.trace import Mark

_TRIES = 5
"""How often files are looked up again that were renamed before they were open."""

Part = LiveFile | FileReading
"""A file that may get more, or a compressed one, to which nobody writes any more."""


class _MovedError(Exception):
    """A path is another file than it was a moment ago."""


def open_part(file: LogFile) -> Part:
    """Open a file. Raises OSError, CorruptArchiveError, and what `open_all` tries again for."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if status.st_ino != file.inode or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _MovedError
    try:
        if named(file.path) is None:
            return LiveFile(descriptor)
        return FileReading(descriptor, file.path)
    except BaseException:
        os.close(descriptor)
        raise


def open_all(select: Callable[[], Sequence[LogFile]]) -> list[Part]:
    """Open all files that `select` finds, as they are at one moment.

    Raises OSError for one that cannot be opened, CorruptArchiveError.
    """
    for _ in range(_TRIES):
        opened: list[Part] = []
        try:
            for file in select():
                opened.append(open_part(file))  # noqa: PERF401 - what is open must be closed again
        except (_MovedError, FileNotFoundError):
            close_all(opened)
        except BaseException:
            close_all(opened)
            raise
        else:
            return opened
    return []


def open_at(files: Sequence[LogFile], mark: Mark) -> tuple[int, Part] | None:
    """Open the file that holds a place, there; return its number as well.

    It is looked for where the place was, then from the newest file on back. Raises OSError.
    """
    numbers = sorted(range(len(files)), key=lambda one: (files[one].inode != mark.inode, -one))
    for number in numbers:
        if not mark.offset and files[number].inode != mark.inode:
            continue  # nothing was read of it: so any file would do
        with suppress(_MovedError, FileNotFoundError, CorruptArchiveError):
            part = open_part(files[number])
            if part.seek(mark):
                return number, part
            part.close()
    return None


def close_all(parts: Iterable[Part]) -> None:
    """Close files."""
    for part in parts:
        part.close()
