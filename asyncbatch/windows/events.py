"""What goes into windows and what comes out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from asyncbatch.errors import AsyncbatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.windows.aggregates import Totals
    from asyncbatch.windows.keys import Key
    from asyncbatch.windows.times import Moments


class Events(Struct, frozen=True):
    """Events of one source in the order in which they came, at least one, in columns.

    Without `keys` all have (). There is a column for each of the recipe's fields.
    """

    count: int
    moments: Moments
    keys: Sequence[Key] | None = None
    columns: tuple[Sequence[Any], ...] = ()
    source: str = ""


class Group(Struct, frozen=True, array_like=True):
    """Events of one pane and key: their totals, or (if that is quicker) their number and values."""

    pane: int
    key: Key
    count: int
    columns: Sequence[Sequence[Any]]
    totals: Totals | None = None


class Folded(Struct, frozen=True):
    """Events of one source put together, as far as that can be done apart from all others."""

    count: int
    lowest: int
    highest: int
    groups: list[Group]


class Window(Struct, frozen=True):
    """A window of one key that is over, in microseconds; `partial` if it was ended early."""

    start: int
    end: int
    key: Key
    totals: Totals
    partial: bool = False


class Taken(Struct):
    """What came of some events: windows that are over, and the places of events that were late.

    `late_in_part` were too late for some of their windows, and are in the others.
    """

    closed: list[Window]
    late: list[int]
    late_in_part: int = 0


class TooManyKeysError(AsyncbatchError):
    """A window would have more keys than it may: `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a window has more than {self.most:,} keys"


class Windower(Protocol):
    """Puts events into windows.

    Each event is judged by those before it, so nothing depends on how many are taken at once.
    """

    def take(self, events: Events) -> Taken:
        """Put events where they belong. Raises TooManyKeysError."""
        ...

    def advance(self) -> list[Window]:
        """Return the windows that are over now that the watermark has moved by itself."""
        ...

    def finish(self, *, partial: bool) -> list[Window]:
        """Return all windows that are not over, which end here."""
        ...

    @property
    def open(self) -> list[Window]:
        """The windows that are not over, by start and end; their totals still change."""
        ...
