"""Windows that are not over, written down, so that another process can go on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct
from msgspec.json import Decoder, Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.windows.aggregates import Totals


class Kept(Struct, frozen=True, array_like=True):
    """A pane or session of one key: its fields' values, how many events, their statistics."""

    start: int
    end: int
    key: list[Any]
    count: int
    statistics: list[Any]


class WindowsState(Struct, frozen=True):
    """All panes or sessions, each as JSON; windows that end by `closed_to` are over."""

    closed_to: int
    kept: list[Raw]

    def all(self) -> Iterator[Kept]:
        """Yield each pane or session. Raises msgspec.ValidationError."""
        return map(_decode, self.kept)


_encode, _decode = Encoder().encode, Decoder(Kept).decode


def kept(start: int, end: int, key: list[Any], totals: Totals) -> Raw:
    """Return a pane or session written down.

    That is JSON at once: as objects, many would keep the garbage collector busy for seconds.
    """
    return Raw(_encode(Kept(start, end, key, totals.count, totals.states())))
