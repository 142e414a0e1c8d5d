"""A stream written down, so that another process can go on with it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from asyncbatch.records import Position
from asyncbatch.streams.tally import StreamTally  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.windows.state import WindowsState  # noqa: TC001 - as above


class SourceState(Struct, frozen=True):
    """How far one source is: its largest time, and where it goes on, if it can be read again.

    Of its `file` the reader was at `at`; after that comes what is `held`, the beginning of a line.
    `arrived` is the time of its last event if that is the time of its arrival.
    """

    top: int
    is_over: bool = False
    position: Any = None
    file: str = ""
    held: bytes = b""
    at: Position = field(default_factory=Position)
    arrived: int = 0


class StreamState(Struct, frozen=True):
    """All of a stream: its sources in the order in which they joined."""

    watermark: int
    sources: list[SourceState]
    windows: WindowsState
    tally: StreamTally
