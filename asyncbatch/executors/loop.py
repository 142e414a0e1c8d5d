"""The engine of async functions: lanes on the event loop of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.executors.lanes import Lane


class LoopEngine:
    """Lanes that need neither a thread nor a process."""

    pids: Sequence[int] = ()

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
