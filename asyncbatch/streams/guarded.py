"""A target that only one thread uses at a time, also when a stream is given up midway."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.outflow import WindowTarget
    from asyncbatch.windows.events import Window


class GuardedTarget:
    """Lets whoever comes wait for the one before: see `WindowTarget` for what they can do.

    A task that is cancelled leaves its thread at work, and nothing must be closed under that.
    """

    def __init__(self, target: WindowTarget) -> None:
        self.name, self.patience = target.name, target.patience
        self._target, self._lock = target, threading.Lock()

    def check_keeps(self) -> None:
        """See `WindowTarget`."""
        self._target.check_keeps()

    def open(self, place: Any = None, gone: Sequence[Window] = ()) -> None:  # noqa: ANN401 - JSON
        """See `WindowTarget`."""
        with self._lock:
            self._target.open(place, gone)

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """See `WindowTarget`: nothing is written."""
        return self._target.rows(windows)

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        """See `WindowTarget`."""
        with self._lock:
            return self._target.load(rows)

    def place(self) -> Any:  # noqa: ANN401 - JSON
        """See `WindowTarget`."""
        with self._lock:
            return self._target.place()

    def finish(self, *, ended: bool) -> None:
        """See `WindowTarget`."""
        with self._lock:
            self._target.finish(ended=ended)
