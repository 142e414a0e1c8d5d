"""What a log file's rotated files are called, and in which order they were written."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.codec.compression import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKED = re.compile(r"[._-](?:\d[\dT:._-]*Z?|old|prev|bak)")
"""What rotation puts into a name: a number, a date, or a word."""
_NUMBER = re.compile(r"[._-](\d{1,6})")
"""Such a number counts rotations: the largest was the first; anything longer is a date."""


class LogFile(NamedTuple):
    """A file of a log: where it is, which it is, when it was last written to, in nanoseconds."""

    path: str
    inode: int
    modified: int


def log_files(path: str) -> list[LogFile]:
    """Return the rotated files of a log, and last the one at `path`, if it is there."""
    rotated = rotated_files(path)
    with suppress(OSError):
        status = os.stat(path)
        rotated.append(LogFile(path, status.st_ino, status.st_mtime_ns))
    return rotated


def written_after(files: Sequence[LogFile], inode: int, modified: int) -> list[LogFile]:
    """Return the files that come after one, which may be there no longer or be compressed now."""
    for number, file in enumerate(files):
        if file.inode == inode:
            return list(files[number + 1 :])
    return [file for file in files if file.modified > modified]


def rotated_files(path: str) -> list[LogFile]:
    """Return the rotated files of the log at `path`, those written first in front.

    That is the order of their numbers if all have one, else that of their times. Where a file is
    there compressed as well as plain, only the plain one is: the other may not be whole yet.
    """
    folder, name = os.path.split(os.path.realpath(path))
    found: dict[str, tuple[int | None, LogFile]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                plain = _without_compression(entry.name)
                mark = _mark(plain, name)
                is_compressed = plain != entry.name
                if mark is None or not entry.is_file() or (is_compressed and plain in found):
                    continue
                status = entry.stat()
                number = _NUMBER.fullmatch(mark)
                found[plain] = (
                    int(number[1]) if number else None,
                    LogFile(entry.path, status.st_ino, status.st_mtime_ns),
                )
    except OSError:  # no longer there, or not for us to see
        return []
    ranked = list(found.values())
    if all(number is not None for number, _ in ranked):
        ranked.sort(key=lambda one: -(one[0] or 0))
    else:
        ranked.sort(key=lambda one: (one[1].modified, one[1].path))
    return [file for _, file in ranked]


def _mark(plain: str, name: str) -> str | None:
    """Return what rotation has put into a name, at its end or before its ending."""
    stem, ending = os.path.splitext(name)
    for start, end in ((name, ""), (stem, ending)):
        if plain.startswith(start) and plain.endswith(end) and len(plain) > len(start) + len(end):
            middle = plain[len(start) : len(plain) - len(end)]
            if _MARKED.fullmatch(middle):
                return middle
    return None


def _without_compression(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
