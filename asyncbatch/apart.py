"""Iterators whose steps may block, and an event loop that must not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ItemT = TypeVar("ItemT")


async def stepped(items: Iterator[ItemT], *, apart: bool) -> AsyncIterator[ItemT]:
    """Yield items, each made in a thread if its making is to be kept `apart` from the loop."""
    if not apart:
        for item in items:
            yield item
        return
    end = object()
    while (found := await asyncio.to_thread(next, items, end)) is not end:
        yield found  # type: ignore[misc]  # it is an item, since it is not the end
