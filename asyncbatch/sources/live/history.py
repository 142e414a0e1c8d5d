"""The files of a log that were read, recognised after rotation and compression."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.live.file import DIGEST_BYTES, FileMark
from asyncbatch.sources.live.rotation import FileMovedError, open_log_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.sources.live.rotation import LogFile, OpenLogFile

_REMEMBERED = 4  # finished files; of a log, the newest of them that is still there is enough
_MAX_VERDICTS = 1000  # comparisons of a file with a mark, kept so that no file is read again


class ReadFile(Struct, frozen=True, omit_defaults=True):
    """A file of a log that was read to its end, or was there before the stream."""

    inode: int
    modified_ns: int  # the time of the last write, since 1970
    end: FileMark | None = None  # its end, which identifies the content; None if it is unknown


def read_file(file: OpenLogFile) -> ReadFile:
    """Return an open file as one that is read to its present end."""
    mark = file.end_mark()
    return ReadFile(file.inode, file.modified_ns(), mark if mark.offset else None)


class LogHistory:
    """The files of a log that were finished last.

    A file is recognised by its inode, or by the beginning, the length and the end of its content,
    compressed or not: programs that rotate logs write a compressed file anew, often with a new
    time.
    """

    def __init__(self, files: Iterable[ReadFile] = ()) -> None:
        self._files = deque(files, maxlen=_REMEMBERED)
        self._verdicts: dict[tuple[FileMark, int, int], bool] = {}
        self._position: Any = None

    @property
    def position(self) -> Any:
        """The files as JSON. It is shared between chunks: do not change it."""
        if self._position is None:
            self._position = msgspec.to_builtins(list(self._files))
        return self._position

    def add(self, file: ReadFile) -> None:
        """Add the file that was finished last."""
        self._files.append(file)
        self._position = None

    def files_after(self, files: Sequence[LogFile], opened: Sequence[OpenLogFile]) -> list[LogFile]:
        """Return the files that are newer than all known ones: finished ones, then `opened`.

        If none of the known ones is there any more, the times of the last write decide.
        """
        newest: ReadFile | None = None
        for one in reversed(opened):
            known = read_file(one)
            newest = newest or known
            if (number := self.find(files, known, is_open=True)) is not None:
                return list(files[number + 1 :])
        for known in reversed(self._files):
            newest = newest or known
            if (number := self.find(files, known)) is not None:
                return list(files[number + 1 :])
        return [file for file in files if newest is None or file.modified_ns > newest.modified_ns]

    def find(
        self, files: Sequence[LogFile], known: ReadFile, *, is_open: bool = False
    ) -> int | None:
        """Return the index of a known file, None if it is not there.

        The inode of a file that `is_open` cannot belong to another file.
        """
        for number, file in enumerate(files):
            if file.inode == known.inode and (
                is_open or file.modified_ns == known.modified_ns or self._has_end(file, known.end)
            ):
                return number
        for number in range(len(files) - 1, -1, -1):
            if self._has_end(files[number], known.end):
                return number
        return None

    def _has_end(self, file: LogFile, end: FileMark | None) -> bool:
        """Whether the content of a file is that of a known file with this end."""
        if end is None:
            return False
        verdict = end, file.inode, file.modified_ns
        if verdict not in self._verdicts:
            if len(self._verdicts) >= _MAX_VERDICTS:
                self._verdicts.clear()
            self._verdicts[verdict] = _ends_at(file, end)
        return self._verdicts[verdict]


def _ends_at(file: LogFile, end: FileMark) -> bool:
    """Whether a file has the content before `end`, and nothing after it.

    Content of a usual length identifies a file that has grown since, too.
    """
    with suppress(FileMovedError, CorruptArchiveError, OSError):
        opened = open_log_file(file)
        try:
            return opened.seek(end) and (end.offset >= DIGEST_BYTES or opened.is_at_end())
        finally:
            opened.close()
    return False
