"""Windows that are not over, written down, so that another process can go on with them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Kept(Struct, frozen=True, array_like=True):
    """A pane or session of one key: its fields' values, how many events, their statistics."""

    start: int
    end: int
    key: list[Any]
    count: int
    statistics: list[Any]


class WindowsState(Struct, frozen=True):
    """All panes or sessions; windows that end by `closed_to` are over."""

    closed_to: int
    kept: list[Kept]
