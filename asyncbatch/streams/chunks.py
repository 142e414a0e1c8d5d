"""What streams are fed with: pieces of files, as they come from a source."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct


class Chunk(Struct, frozen=True):
    """Bytes of a file, in order; after the one that `ends` it, its last line is whole.

    `position` is where the source goes on behind them, as JSON can hold it; None if it cannot
    be read again. With a `flaw` they are no lines, but show what cannot be one, and that says why.
    """

    file: str
    data: bytes
    ends: bool = False
    position: Any = None
    flaw: str = ""


class Source(Protocol):
    """Gives chunks, as soon as there are any; `wake` ends a wait, whatever for."""

    name: str
    """What tells it from other sources: the watermark waits for each."""
    is_over: bool
    """Whether all was given; then there is no more to read."""

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - nothing is cancelled: a pipe's reader stays
        """Return what has come next, None after `timeout` seconds or `wake`. Raises OSError."""
        ...

    def wake(self) -> None:
        """End the wait of `read`, if there is one."""
        ...

    def close(self) -> None:
        """Leave the source."""
        ...
