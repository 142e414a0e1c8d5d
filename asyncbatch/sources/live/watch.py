"""File-system notifications for folders."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.aio import Wakeup

POLL_SECONDS = 1.0  # between two checks without notifications: network file systems send none
_STEP_MILLISECONDS = 20  # changes that follow each other within this time are reported together
_DEBOUNCE_MILLISECONDS = 100  # the longest delay of a report since the first change


class FolderWatch:
    """Sets `wakeup` when a path below the folders changes for which `matches(path)` is true.

    A daemon thread waits for the notifications. NFS and FUSE send none: always wait with a timeout.
    Raises UsageError if watchfiles is not installed.
    """

    def __init__(
        self,
        folders: Sequence[str],
        wakeup: Wakeup,
        matches: Callable[[str], bool],
        *,
        recursive: bool = False,
    ) -> None:
        try:
            import watchfiles
        except ImportError:
            raise UsageError(
                f"--follow needs the watchfiles package: {install_command('watch')}"
            ) from None
        self._folders, self._recursive = folders, recursive
        self._wakeup, self._matches = wakeup, matches
        self._watch = watchfiles.watch
        self._stop_event = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it is running. Call it in the event loop."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        self._stop_event.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            changes = self._watch(
                *self._folders,
                watch_filter=lambda _, path: self._matches(path),
                step=_STEP_MILLISECONDS,
                debounce=_DEBOUNCE_MILLISECONDS,
                stop_event=self._stop_event,
                raise_interrupt=False,
                recursive=self._recursive,
                ignore_permission_denied=True,
            )
            for _ in changes:
                loop.call_soon_threadsafe(self._wakeup.set)
        except Exception:  # noqa: BLE001 - the notifications are optional: the poll still works
            return
