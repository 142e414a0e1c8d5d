"""Log rotation: the rotated files of a log, found and opened."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.formats.compression import SUFFIXES, compression_by_name
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.live.file import FileReader, LiveFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.sources.live.file import FileMark

# The part of a name that log rotation adds: a number, a date, or a word.
_ROTATION_SUFFIX = re.compile(r"[._-](?:\d[\dT:._-]*Z?|old|prev|bak)")
# A counter of rotations; the largest is the oldest file. A number with more digits is a date.
_NUMBER = re.compile(r"[._-](\d{1,6})")
# A date, perhaps with a time and a counter, or seconds since 1970: the smallest is the oldest file.
_DATE = re.compile(r"[._-](?:\d{4}[-._]\d\d|\d{7,})[\dT:._-]*Z?")
_DIGITS = re.compile(r"\d+")


class LogFile(NamedTuple):
    """A file of a log, present or rotated."""

    path: str
    inode: int
    modified_ns: int  # the time of the last write, since 1970


def log_files(path: str) -> list[LogFile]:
    """Return the rotated files of a log, then the file at `path` if it exists."""
    rotated = rotated_files(path)
    with suppress(OSError):
        status = os.stat(path)
        rotated.append(LogFile(path, status.st_ino, status.st_mtime_ns))
    return rotated


def rotated_files(path: str) -> list[LogFile]:
    """Return the rotated files of the log at `path`, the oldest first.

    They are ordered by the number or the date in their names if all have one, else by time: a file
    that was compressed may have the time of the compression. If a file exists both compressed and
    uncompressed, the compressed one is left out, because it may be incomplete.
    """
    folder, name = os.path.split(os.path.realpath(path))
    found: dict[str, tuple[str, LogFile]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                plain = _without_compression(entry.name)
                mark = _rotation_suffix(plain, name)
                is_compressed = plain != entry.name
                if mark is None or not entry.is_file() or (is_compressed and plain in found):
                    continue
                status = entry.stat()
                found[plain] = mark, LogFile(entry.path, status.st_ino, status.st_mtime_ns)
    except OSError:  # the folder was removed, or may not be listed
        return []
    marks = [mark for mark, _ in found.values()]
    ranked = list(found.values())
    if all(map(_NUMBER.fullmatch, marks)):
        ranked.sort(key=lambda one: -int(one[0][1:]))
    elif all(map(_DATE.fullmatch, marks)):
        ranked.sort(key=lambda one: list(map(int, _DIGITS.findall(one[0]))))
    else:
        ranked.sort(key=lambda one: (one[1].modified_ns, one[1].path))
    return [file for _, file in ranked]


def _rotation_suffix(plain: str, name: str) -> str | None:
    """Return the rotation suffix in a file name, at its end or before its extension."""
    stem, ending = os.path.splitext(name)
    for start, end in ((name, ""), (stem, ending)):
        if plain.startswith(start) and plain.endswith(end) and len(plain) > len(start) + len(end):
            middle = plain[len(start) : len(plain) - len(end)]
            if _ROTATION_SUFFIX.fullmatch(middle):
                return middle
    return None


def _without_compression(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


_OPEN_ATTEMPTS = 5  # while files are being renamed

OpenLogFile = LiveFile | FileReader  # a file that may grow, or a compressed, complete file


class FileMovedError(Exception):
    """A path leads to another file than when it was listed."""


def open_log_file(file: LogFile) -> OpenLogFile:
    """Open a file of a log. Raises OSError and CorruptArchiveError.

    Raises FileMovedError if the path leads to another file by now.
    """
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if status.st_ino != file.inode or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileMovedError
    try:
        if compression_by_name(file.path) is None:
            return LiveFile(descriptor)
        return FileReader(descriptor, file.path)
    except BaseException:
        os.close(descriptor)
        raise


def open_all(select: Callable[[], Sequence[LogFile]]) -> list[OpenLogFile]:
    """Open all files that `select` returns. If one was renamed meanwhile, select again.

    Returns no file if that fails five times. Raises OSError and CorruptArchiveError.
    """
    for _ in range(_OPEN_ATTEMPTS):
        opened: list[OpenLogFile] = []
        try:
            for file in select():
                opened.append(open_log_file(file))  # noqa: PERF401 - open files must be closed after an error
        except (FileMovedError, FileNotFoundError):
            close_all(opened)
        except BaseException:
            close_all(opened)
            raise
        else:
            return opened
    return []


def open_at(files: Sequence[LogFile], mark: FileMark) -> tuple[int, OpenLogFile] | None:
    """Open the file to which `mark` belongs, at the mark; return its index and the file.

    The file with the same inode is tried first, then the files from the newest to the oldest.
    Returns None if no file matches. Raises OSError.
    """
    numbers = sorted(range(len(files)), key=lambda one: (files[one].inode != mark.inode, -one))
    for number in numbers:
        if not mark.offset and files[number].inode != mark.inode:
            continue  # a mark at the beginning has no bytes before it, so any file would match
        with suppress(FileMovedError, FileNotFoundError, CorruptArchiveError):
            part = open_log_file(files[number])
            if part.seek(mark):
                return number, part
            part.close()
    return None


def close_all(parts: Iterable[OpenLogFile]) -> None:
    """Close all files."""
    for part in parts:
        part.close()
