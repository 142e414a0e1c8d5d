"""The way of one source's bytes to events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.streams.line_cutter import LineCutter
from asyncbatch.streams.state import SourceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.streams.chunks import Chunk
    from asyncbatch.streams.reader import EventReader


class Inlet:
    """Cuts a source's chunks into lines; its `reader` makes events of them.

    `position` is that of the last chunk that was cut.
    """

    def __init__(self, make_reader: Callable[[str], EventReader], file: str) -> None:
        self._make_reader = make_reader
        self.file, self.reader = file, make_reader(file)
        self.position: Any = None
        self._cutter = LineCutter()

    def begin(self, file: str) -> None:
        """Go on with another file, from its beginning."""
        self.file, self.reader = file, self._make_reader(file)

    def cut(self, chunk: Chunk) -> bytes:
        """Return the lines that end in a chunk. Raises LineTooLongError."""
        self.position = chunk.position
        lines = self._cutter.take(chunk.data)
        return lines + self._cutter.rest() if chunk.ends else lines

    def give_back(self, lines: bytes) -> None:
        """Have lines that were not taken come again, should somebody go on here."""
        self._cutter.give_back(lines)

    @property
    def has_lines(self) -> bool:
        """Whether the next chunk brings lines that came before it."""
        return self._cutter.has_lines

    def state(self, top: int, *, is_over: bool = False) -> SourceState:
        """Return what `restore` takes; `top` is the largest time that the source has told.

        Of a source that cannot be read again there is but what it has told.
        """
        at, arrived = self.reader.place
        if self.position is None:
            return SourceState(top, is_over, arrived=arrived)
        return SourceState(top, is_over, self.position, self.file, self._cutter.held, at, arrived)

    def restore(self, state: SourceState) -> None:
        """Become, being new, what `state` was called on."""
        if state.position is not None:
            self.position = state.position
            self.begin(state.file)
            self._cutter.restore(state.held)
        self.reader.go_on(state.at, state.arrived)
