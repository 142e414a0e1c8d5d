"""The files that were renamed into watched folders."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncinotify import Event, Inotify

    from asyncbatch.sources.live.seen import FoundFile

_MAX_FILES = 20_000  # files that are remembered
_STOP_SECONDS = 0.5  # after which the thread sees that it has to end


class Renames:
    """Remembers the files that were renamed into folders: these are complete.

    Notifications of renames need Linux and the asyncinotify package. Without them, and beyond the
    system's limit of watches, the times of a file must decide: they show a rename, too, unless the
    last write was within the same tick of the file system's clock (some milliseconds); but they
    also show a change of the mode or the owner. Any thread may call `has`.
    """

    def __init__(self) -> None:
        self.sees_all: bool = False  # whether all folders are watched now
        # By inode: the time of the last write and the size at the time of the rename.
        self._files: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def has(self, file: FoundFile) -> bool:
        """Whether a file was renamed and is unchanged since. Forget it if it has changed."""
        with self._lock:
            known = self._files.get(file.inode)
            if known is not None and known != (file.key[0], file.size):
                del self._files[file.inode]
                return False
        return known is not None

    @contextmanager
    def watching(self, folders: Sequence[str], noted: Callable[[str], None]) -> Iterator[None]:
        """Receive notifications of the folders, and of all folders below them.

        `noted` is called, in a thread, with the path of each file that is remembered.
        """
        inotify = None
        with suppress(ImportError, OSError):  # the times of files still tell most renames
            from asyncinotify import Inotify

            inotify = Inotify(sync_timeout=_STOP_SECONDS)
        if inotify is None:
            yield
            return
        self.sees_all = True
        for folder in folders:
            self._watch_below(inotify, folder)
        stopped = threading.Event()
        receiving = inotify, stopped, noted
        threading.Thread(target=self._receive, args=receiving, daemon=True).start()
        try:
            yield
        finally:
            self.sees_all = False
            stopped.set()

    def _receive(
        self, inotify: Inotify, stopped: threading.Event, noted: Callable[[str], None]
    ) -> None:
        with inotify:
            while not stopped.is_set():
                for event in inotify:  # it ends when none comes for a while
                    path = self._handle(inotify, event)
                    if path is not None:
                        noted(path)
                    if stopped.is_set():
                        break

    def _handle(self, inotify: Inotify, event: Event) -> str | None:
        """Return the path of the file that a notification makes known, if it does."""
        from asyncinotify import Mask

        path = event.path
        if path is None:
            return None
        if event.mask & Mask.ISDIR:
            if event.mask & Mask.MOVED_FROM:
                _forget_below(inotify, path)
            else:
                self._watch_below(inotify, str(path))
        elif event.mask & Mask.MOVED_TO:
            with suppress(OSError):
                self._remember(os.stat(path))
                return str(path)
        return None

    def _watch_below(self, inotify: Inotify, top: str) -> None:
        """Watch a folder and all folders below it, as far as the system allows."""
        from asyncinotify import Mask

        mask = Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.ONLYDIR
        for folder, _, _ in os.walk(top):
            try:
                inotify.add_watch(folder, mask)
            except FileNotFoundError:  # it is gone again
                continue
            except OSError:
                self.sees_all = False

    def _remember(self, status: os.stat_result) -> None:
        with self._lock:
            if len(self._files) >= _MAX_FILES:
                self._files.clear()
            self._files[status.st_ino] = status.st_mtime_ns, status.st_size


def _forget_below(inotify: Inotify, top: Path) -> None:
    """Watch no longer a folder that was moved away: its path may lead to another one."""
    for watch in inotify.watches:
        if watch.path == top or top in watch.path.parents:
            with suppress(OSError):  # the folder is gone
                inotify.rm_watch(watch)
