"""A window as programs get it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class WindowResult(Struct, frozen=True):
    """What the events of one window and key come to.

    `start` belongs to the window, `end` does not; both are in UTC. (What is beyond the years 1 to
    9999, where a window may begin or end, is the first or last datetime.) `partial` if the window
    was ended early: more events might have come.
    """

    start: datetime
    end: datetime
    key: dict[str, Any]
    aggregates: dict[str, Any]
    partial: bool = False


def result_of(stream: Stream, window: Window) -> WindowResult:
    """Return a window of a stream as programs get it."""
    return WindowResult(
        _datetime(window.start),
        _datetime(window.end),
        stream.keys.named(window.key),
        stream.recipe.results(window.totals),
        window.partial,
    )


def _datetime(micros: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return _FIRST if micros < 0 else _LAST
