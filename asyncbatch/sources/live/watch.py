"""File-system notifications for folders."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError
from asyncbatch.sources.live.renames import Renames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from asyncbatch.core.aio import Wakeup

POLL_SECONDS = 1.0  # between two checks without notifications: network file systems send none
_STEP_MILLISECONDS = 20  # changes that follow each other within this time are reported together
_DEBOUNCE_MILLISECONDS = 100  # the longest delay of a report since the first change
_RESTART_SECONDS = 1.0  # after an error of the notifications
_MAX_PATHS = 20_000  # changed paths that wait to be taken
# The kernel drops notifications beyond 16,384 (fs.inotify.max_queued_events), and the library does
# not report it. After a report of this size, notifications may be lost.
_MANY_PATHS = 1000


class ChangedPaths:
    """The paths that have changed since the last `take`, in bounded memory.

    `may_miss_some` is true if other paths may have changed, too: the folders must be scanned. Any
    thread may use it.
    """

    def __init__(self) -> None:
        self.may_miss_some: bool = False
        self._paths: dict[str, None] = {}
        self._lock = threading.Lock()

    def add(self, paths: Iterable[str]) -> None:
        """Add paths in their order."""
        with self._lock:
            before = len(self._paths)
            self._paths.update(dict.fromkeys(paths))
            if len(self._paths) - before >= _MANY_PATHS:
                self.may_miss_some = True
            if len(self._paths) > _MAX_PATHS:
                self._paths.clear()

    def lose(self) -> None:
        """Note that changes may be missing."""
        self.may_miss_some = True

    def take(self) -> list[str]:
        """Return the paths, and forget them."""
        with self._lock:
            paths, self._paths = list(self._paths), {}
        return paths


class _StopSignal:
    """The event that stops the library; its first question shows that the folders are watched."""

    def __init__(self, watching: Callable[[], None]) -> None:
        self._watching: Callable[[], None] | None = watching
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        if self._watching is not None:
            watching, self._watching = self._watching, None
            watching()
        return self._is_set


class FolderWatch:
    """Sets `wakeup` when a path below the folders changes for which `matches(path)` is true.

    With `changed`, it notes these paths there, and the moments since when paths may be missing.
    `renames` knows the files that were renamed into the folders, if `recursive`. A daemon thread
    waits for the notifications. NFS and FUSE send none: always wait with a timeout. Raises
    UsageError if watchfiles is not installed; `option` needs it.
    """

    def __init__(
        self,
        folders: Sequence[str],
        wakeup: Wakeup,
        matches: Callable[[str], bool],
        *,
        recursive: bool = False,
        changed: ChangedPaths | None = None,
        option: str = "--follow",
    ) -> None:
        try:
            import watchfiles
        except ImportError:
            raise UsageError(
                f"{option} needs the watchfiles package: {install_command('watch')}"
            ) from None
        self.is_working: bool = False  # whether notifications come
        self._folders, self._recursive = folders, recursive
        self._wakeup, self._matches, self._changed = wakeup, matches, changed
        self._watch = watchfiles.watch
        self.renames: Renames = Renames()
        self._stop_signal = _StopSignal(lambda: None)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it is running. Call it in the event loop."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
            self._thread.start()

    def restart(self) -> None:
        """Watch the folders that are at the paths now."""
        self._stop_signal.set()

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        self._closed.set()
        self._stop_signal.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._closed.is_set():
            self._stop_signal = _StopSignal(lambda: self._note_watching(loop))
            if self._closed.is_set():  # `close` has set the signal before
                return
            try:
                with self._watching_renames(loop):
                    for changes in self._watch(
                        *self._folders,
                        watch_filter=lambda _, path: self._matches(path),
                        step=_STEP_MILLISECONDS,
                        debounce=_DEBOUNCE_MILLISECONDS,
                        stop_event=self._stop_signal,
                        raise_interrupt=False,
                        recursive=self._recursive,
                        ignore_permission_denied=True,
                    ):
                        self._note((path for _, path in changes), loop)
            except Exception:  # noqa: BLE001 - the notifications are optional: the poll still works
                self.is_working = False
                if self._closed.wait(_RESTART_SECONDS):
                    return

    def _watching_renames(self, loop: asyncio.AbstractEventLoop) -> AbstractContextManager[None]:
        if not self._recursive:
            return nullcontext()
        return self.renames.watching(self._folders, lambda path: self._note((path,), loop))

    def _note(self, paths: Iterable[str], loop: asyncio.AbstractEventLoop) -> None:
        """Note changed paths, and wake the task that waits for them."""
        if self._changed is not None:
            self._changed.add(paths)
        with suppress(RuntimeError):  # the loop has ended, and so has the search
            loop.call_soon_threadsafe(self._wakeup.set)

    def _note_watching(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that from now on, changes are reported; those before may be missing."""
        self.is_working = True
        if self._changed is not None:
            self._changed.lose()
            loop.call_soon_threadsafe(self._wakeup.set)
