"""Window settings: tumbling, hopping or session."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from asyncbatch.core.units import format_duration, parse_duration
from asyncbatch.windows.times import END_OF_TIME, FIRST_TIME

Kind = Literal["tumbling", "hopping", "session"]
_FORMS = "tumbling:SIZE, hopping:SIZE/EVERY or session:GAP, such as tumbling:5s"
_MOST_AT_ONCE = 10_000  # windows that contain the same event


class WindowSpec(Struct, frozen=True):
    """The kind and length of windows. A window contains its start, but not its end."""

    kind: Kind
    size: int  # length in microseconds; of a session: the gap after its last event
    every: int  # microseconds from start to start, at multiples since the epoch; not for sessions

    def check_time(self, time: int) -> None:
        """Raise ValueError if a window of an event at `time` is not within the years 1 to 9999.

        Targets have no other times.
        """
        if self.kind == "session":
            first, end = time, time + self.size
        else:
            first = (time - self.size) // self.every * self.every + self.every
            end = time // self.every * self.every + self.size
        if first < FIRST_TIME:
            raise ValueError(f"belongs to a window of {self} that starts before the year 1")
        if end >= END_OF_TIME:
            raise ValueError(f"belongs to a window of {self} that ends after the year 9999")

    @property
    def pane(self) -> int:
        """The length of a pane in microseconds: it divides `size` and `every`."""
        return math.gcd(self.size, self.every)

    def __str__(self) -> str:
        more = f"/{format_duration(self.every)}" if self.kind == "hopping" else ""
        return f"{self.kind}:{format_duration(self.size)}{more}"


def parse_window(text: str) -> WindowSpec:
    """Parse a window specification. Raises ValueError with the accepted forms."""
    kind, _, rest = text.partition(":")
    if kind == "hopping":
        size, slash, every = rest.partition("/")
        if not slash:
            raise ValueError(f"{text!r} has no EVERY; write hopping:SIZE/EVERY: hopping:1m/10s")
        return _checked(text, "hopping", parse_duration(size), parse_duration(every))
    if kind not in ("tumbling", "session") or not rest:
        raise ValueError(f"{text!r} is not a window; write {_FORMS}")
    span = parse_duration(rest)
    return _checked(text, "tumbling" if kind == "tumbling" else "session", span, span)


def _checked(text: str, kind: Kind, size: int, every: int) -> WindowSpec:
    if not size or not every:
        raise ValueError(f"{text!r} has a length of zero; write {_FORMS}")
    if every > size:
        raise ValueError(f"{text!r} leaves gaps between windows: EVERY is longer than SIZE")
    if size > every * _MOST_AT_ONCE:
        raise ValueError(f"{text!r} puts each event into more than {_MOST_AT_ONCE:,} windows")
    return WindowSpec(kind, size, every)
