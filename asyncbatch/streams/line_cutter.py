"""Bytes as they come into whole lines."""

from __future__ import annotations

from asyncbatch.errors import AsyncbatchError
from asyncbatch.settings import Sizes

_LONGEST = Sizes().record


class LineTooLongError(AsyncbatchError):
    """A line does not end: it has more bytes than any event may."""


class LineCutter:
    """Holds back the beginning of a line until its end has come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._back = b""
        """Whole lines that come again before all others."""

    def take(self, data: bytes) -> bytes:
        """Return the lines that end in `data`. Raises LineTooLongError."""
        if self._back:
            back, self._back = self._back, b""
            return back + self.take(data)
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return b""
        lines = b"".join((*self._pieces, data[:cut])) if self._pieces else data[:cut]
        self._pieces, self._held = [], 0
        if cut < len(data):
            self._hold(data[cut:])
        return lines

    def rest(self) -> bytes:
        """Return the last line, if it lacks its end."""
        rest, self._pieces, self._held = b"".join(self._pieces), [], 0
        return rest

    def give_back(self, lines: bytes) -> None:
        """Have whole lines come again, before those that already do."""
        self._back = lines + self._back

    @property
    def has_lines(self) -> bool:
        """Whether whole lines are to come again."""
        return bool(self._back)

    @property
    def held(self) -> bytes:
        """What was taken and not returned."""
        return b"".join((self._back, *self._pieces))

    def restore(self, held: bytes) -> None:
        """Become, being new, one that has `held` this."""
        cut = held.rfind(b"\n") + 1
        self._back = held[:cut]
        if held[cut:]:
            self._hold(held[cut:])

    def _hold(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held > _LONGEST:
            raise LineTooLongError(f"a line of more than {_LONGEST:,} bytes is no event")


def first_lines(lines: bytes, most: int) -> bytes:
    """Return the first `most` lines that are not blank, and what blank ones are before them."""
    if lines.count(b"\n") < most:
        return lines
    end = 0
    while most and end < len(lines):
        after = lines.find(b"\n", end) + 1 or len(lines)
        most -= bool(lines[end:after].strip(b" \t\r\n"))
        end = after
    return lines[:end]
