"""The files of watched folders after their outcome is saved: noted, moved or deleted."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.records import display_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncbatch.core.batches import BatchPart, Part
    from asyncbatch.core.settings import WatchSettings
    from asyncbatch.sources.live.seen import FoundFile
    from asyncbatch.sources.live.watched_search import WatchedSearch

_ASIDE = ".asyncbatch-{}.tmp"  # the name, with the process, of a file that is put away right now
_MAX_NOTES = 20  # files that could not be moved or deleted, and are listed


class _FinishedFile(NamedTuple):
    path: str
    below: str  # its path below the watched folder
    version: FoundFile
    is_done: bool  # whether all its records were taken


class FinishedFiles:
    """Notes finished files, and moves or deletes them once their outcome is saved.

    Owned by the run: call `add` for each delivered part in the event loop, and `clear` in a thread
    when all of these parts are saved. A file that has been replaced since it was read stays: it
    comes again. `say` is called with notes for the user.
    """

    def __init__(
        self,
        settings: WatchSettings,
        searches: Mapping[int, WatchedSearch],
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._searches, self._say = settings, searches, say
        self._acts = settings.delete_done or bool(settings.move_done or settings.move_failed)
        self._files: list[_FinishedFile] = []
        self._note_count = 0

    @property
    def has_files(self) -> bool:
        """Whether `clear` has work."""
        return bool(self._files)

    def add(self, batch_part: BatchPart) -> None:
        """Note the files that a delivered part finishes."""
        part, search = batch_part.part, self._searches[batch_part.batch.source]
        for place in range(len(part)):
            path = batch_part.path(place)
            version = search.finish(path)
            if self._acts and version is not None:
                done = _is_done(part, place)
                self._files.append(_FinishedFile(path, search.below(path), version, done))

    def clear(self, put_away: set[str]) -> None:
        """Move or delete the files that were noted, as the settings say.

        `put_away` gets the paths of those whose records were all taken. A new file may take the
        name of one at once, so each is there before.
        """
        files, self._files = self._files, []
        for file in files:
            is_away = False
            if file.is_done:
                put_away.add(file.path)
            try:
                is_away = self._put_away(file)
            except OSError as error:
                self._note(f"cannot put away {display_path(file.path)}: {error.strerror or error}")
            if not is_away:
                put_away.discard(file.path)

    def _put_away(self, file: _FinishedFile) -> bool:
        """Move or delete one file, or leave it. Return whether it is away. Raises OSError."""
        settings = self._settings
        folder = settings.move_done if file.is_done else settings.move_failed
        if folder is None and not (file.is_done and settings.delete_done):
            return False
        if not _is_version(file.path, file.version):
            return False
        is_away = _delete(file) if folder is None else _move(file, os.path.join(folder, file.below))
        if is_away and settings.marker is not None:
            with suppress(FileNotFoundError):
                os.unlink(f"{file.path}{settings.marker}")
        return is_away

    def _note(self, note: str) -> None:
        self._note_count += 1
        if self._note_count <= _MAX_NOTES:
            more = "; more of these notes are left out" if self._note_count == _MAX_NOTES else ""
            self._say(f"Note: {note}{more}")


def _is_done(part: Part, place: int) -> bool:
    """Whether all records of a file were taken, by this run or by an earlier one."""
    status = part.status(place)
    if status != "skipped":
        return status == "success"
    entry = part.entries.get(place)
    return entry is not None and entry.outcome == "success"


def _is_version(path: str, version: FoundFile) -> bool:
    """Whether the file at a path is the version that was read."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    found = status.st_ino, status.st_size, status.st_mtime_ns
    return found == (version.inode, version.size, version.key[0])


def _delete(file: _FinishedFile) -> bool:
    """Delete a file, but not one that takes its name now. Return whether it is. Raises OSError."""
    entry = os.lstat(file.path).st_ino
    # Not the name with an ending: a name of 255 bytes has no room for one.
    aside = os.path.join(os.path.dirname(file.path), _ASIDE.format(os.getpid()))
    os.rename(file.path, aside)
    if _is_moved(file, entry, aside):
        os.unlink(aside)
        return True
    _bring_back(aside, file.path)
    return False


def _move(file: _FinishedFile, to: str) -> bool:
    """Move a file to a path, or to a free name like it. Return whether it is. Raises OSError."""
    entry = os.lstat(file.path).st_ino
    os.makedirs(os.path.dirname(to), exist_ok=True)
    to = _free_name(to)
    try:
        os.rename(file.path, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy_away(file, to)
    if _is_moved(file, entry, to):
        return True
    _bring_back(to, file.path)  # it was replaced at the last moment
    return False


def _is_moved(file: _FinishedFile, entry: int, to: str) -> bool:
    """Whether a path has the file now, or the link to it, which was the inode `entry`.

    A relative link leads elsewhere from its new place.
    """
    if os.path.islink(to):
        return os.lstat(to).st_ino == entry
    return _is_version(to, file.version)


def _copy_away(file: _FinishedFile, to: str) -> bool:
    """Move a file to another file system. Return whether it is away. Raises OSError."""
    unfinished = os.path.join(os.path.dirname(to), _ASIDE.format(os.getpid()))
    try:
        shutil.copy2(file.path, unfinished)
        with open(unfinished, "rb") as copied:
            os.fsync(copied.fileno())
        os.rename(unfinished, to)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    if _is_version(file.path, file.version):
        os.unlink(file.path)
        return True
    os.unlink(to)
    return False


def _bring_back(aside: str, path: str) -> None:
    """Give a file its name back, unless a still newer one has it. Raises OSError."""
    with suppress(FileExistsError):
        os.link(aside, path)
    os.unlink(aside)


def _free_name(path: str) -> str:
    """Return a path where nothing is yet: the path itself, or with a number in its name."""
    folder, name = os.path.split(path)
    stem, dot, endings = name.partition(".") if not name.startswith(".") else (name, "", "")
    number = 1
    while os.path.lexists(path):
        number += 1
        path = os.path.join(folder, f"{stem}-{number}{dot}{endings}")
    return path
