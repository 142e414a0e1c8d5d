"""Something to do when nothing comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

T = TypeVar("T")


async def with_pauses(
    items: AsyncIterator[T], seconds: float | None
) -> AsyncGenerator[T | None, None]:
    """Yield what comes, and None whenever nothing has come for so many seconds (never, if None).

    Closing it leaves `items` at rest, to be closed by whoever has them.
    """
    coming: asyncio.Future[T | None] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(_next(items))
            await asyncio.wait((coming,), timeout=seconds)
            if not coming.done():
                yield None
                continue
            item = coming.result()
            coming = None
            if item is None:
                return
            yield item
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
