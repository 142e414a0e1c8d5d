"""A program's own events as a source: its generators, its lists, its sockets."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

from asyncbatch.drawing import draw, json_of
from asyncbatch.records import Flawed
from asyncbatch.streams.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence

    from asyncbatch.drawing import Drawing


class GivenSource:
    """An iterable of events, async or not: see `drawing.Drawing` for where it is drawn from.

    Events are objects that JSON can hold, or lines of JSON, as text or bytes. What the iterable
    raises is `error`, beside which `failed` is called: the source is not over then, but has no
    more.
    """

    def __init__(self, name: str, events: AsyncIterable[Any] | Iterable[Any]) -> None:
        self.name, self.is_over = name, False
        self.failed: Callable[[], None] = lambda: None
        self._events = events
        self._drawing: Drawing | None = None
        self._chunks: deque[Chunk] = deque()

    @property
    def error(self) -> BaseException | None:
        """What the iterable has raised, if anything."""
        return None if self._drawing is None else self._drawing.error

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - see `Source`
        """Return what has come; see `Source`."""
        if not self._chunks:
            if self._drawing is None:
                self._drawing = draw(self._events, line_of)
            await self._drawing.wait(timeout)
            self._take(self._drawing)
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self.is_over = chunk.ends
        return chunk

    async def rest(self) -> Sequence[Chunk]:
        """Close the iterable, and return what it had given and nobody has read."""
        if self._drawing is not None and not self.is_over:
            await self._drawing.aclose()
            self._chunks += self._parts(self._drawing.take_now())
        rest = [chunk for chunk in self._chunks if not chunk.ends]
        self._chunks.clear()
        return rest

    def wake(self) -> None:
        """End the wait of `read`."""
        if self._drawing is not None:
            self._drawing.wake()

    def close(self) -> None:
        """Have no more drawn; see `aclose`."""
        if self._drawing is not None:
            self._drawing.end()

    async def aclose(self) -> None:
        """Close the iterable, also if nothing was drawn from it."""
        if self._drawing is not None:
            await self._drawing.aclose()
        elif hasattr(self._events, "aclose"):
            await self._events.aclose()
        elif hasattr(self._events, "close"):
            self._events.close()

    def _take(self, drawing: Drawing) -> None:
        self._chunks += self._parts(drawing.take_now())
        if not drawing.is_over:
            return
        if drawing.error is None:
            self._chunks.append(Chunk(self.name, b"", ends=True))
        else:
            self.failed()

    def _parts(self, drawn: Sequence[bytes | Flawed]) -> Iterator[Chunk]:
        """Yield lines, as many together as can be, and what is none by itself."""
        for kind, some in groupby(drawn, type):
            if kind is bytes:
                yield Chunk(self.name, b"".join(some))  # type: ignore[arg-type]  # as `kind` says
            else:
                for one in some:
                    assert isinstance(one, Flawed)
                    yield Chunk(self.name, one.text, flaw=one.reason)


def line_of(event: Any) -> bytes | Flawed:  # noqa: ANN401 - whatever the program gives
    """Return an event as a line, or why that cannot be."""
    if type(event) is not dict:  # as it nearly always is
        if isinstance(event, str):
            try:
                event = event.encode()
            except UnicodeEncodeError:
                return Flawed(ascii(event).encode(), "the source gave text that is not UTF-8")
        if isinstance(event, bytes | bytearray | memoryview):
            line = bytes(event)
            return line if line.endswith(b"\n") else line + b"\n"
    text = json_of(event)
    return text if isinstance(text, Flawed) else text + b"\n"
