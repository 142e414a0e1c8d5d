"""What streams are fed with: pieces of files, as they come from a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec import Struct

from asyncbatch.errors import AsyncbatchError

if TYPE_CHECKING:
    from asyncbatch.records import Failure

CHUNK = 128 * 1024
"""What is given at a time: more would no longer fit into a processor's cache as events."""


class SourceError(AsyncbatchError):
    """A source can be read no further; the message says which, and why."""


class Chunk(Struct, frozen=True):
    """Bytes of a file, in order; after the one that `ends` it, its last line is whole.

    One that `begins` its file is no continuation of what had the same name. `position` is where
    the source goes on behind them, as JSON can hold it; None if it cannot be read again. `loss`
    is what could not be read before them, if anything. With a `flaw` they are no lines, but show
    what cannot be one, and that says why.
    """

    file: str
    data: bytes
    ends: bool = False
    position: Any = None
    begins: bool = False
    loss: Failure | None = None
    flaw: str = ""


class Source(Protocol):
    """Gives chunks, as soon as there are any; `wake` ends a wait, whatever for."""

    name: str
    """What tells it from other sources: the watermark waits for each."""
    is_over: bool
    """Whether all was given; then there is no more to read."""

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - nothing is cancelled: a pipe's reader stays
        """Return what has come next, None after `timeout` seconds or `wake`.

        Raises OSError, SourceError.
        """
        ...

    def wake(self) -> None:
        """End the wait of `read`, if there is one."""
        ...

    def close(self) -> None:
        """Leave the source."""
        ...


@runtime_checkable
class Replayable(Source, Protocol):
    """A source that may be able to go on where it was before.

    `can_resume` tells; then its chunks have positions.
    """

    can_resume: bool

    @property
    def position(self) -> Any:  # noqa: ANN401 - as a chunk has it
        """Where it goes on, also before the first `read`; None if it cannot be read again."""
        ...

    def start_at(self, position: Any) -> None:  # noqa: ANN401 - what a chunk had
        """Go on behind a chunk that had this position; to be called before the first `read`.

        Raises UsageError if what was read is no longer there; OSError.
        """
        ...
