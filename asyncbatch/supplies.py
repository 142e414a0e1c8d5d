"""Where a run's batches come from: one supply for each source, taken in turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, Self

from asyncbatch.records import SOURCE_SPAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.records import Batch, Huge


class Supply(Protocol):
    """An async iterator of batches, for one consumer at a time; told what becomes of them."""

    @property
    def found(self) -> int:
        """How many inputs are known so far."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether these are all."""
        ...

    @property
    def unsettled(self) -> int:
        """How many batches are given and not settled."""
        ...

    def __aiter__(self) -> Self:
        """Return the supply."""
        ...

    async def __anext__(self) -> Batch:
        """Return the next batch. Raises StopAsyncIteration at the end or after `stop`."""
        ...

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, huge: Huge | None = None
    ) -> None:
        """Take note that the first `done` inputs of `batch` are done."""
        ...

    def settle_without(self, batch: Batch, done: int, file: int, *, again: bool) -> None:
        """Settle a batch, but have input number `file` come by itself if `again`, else never."""
        ...

    def end_pieces(self, number: int) -> None:
        """Give no more pieces of an input, but the one at its end."""
        ...

    def stop(self) -> None:
        """Give no more batches."""
        ...

    async def aclose(self) -> None:
        """Let go of everything, whatever is on its way."""
        ...


class Supplies:
    """Several supplies as one: whichever has a batch gives it, so that none waits for another."""

    def __init__(self, supplies: Sequence[Supply]) -> None:
        self._supplies = supplies
        self._asked: dict[asyncio.Future[Batch | None], int] = {}
        self._begun = False

    @property
    def found(self) -> int:
        """See `Supply`."""
        return sum(supply.found for supply in self._supplies)

    @property
    def exhausted(self) -> bool:
        """See `Supply`."""
        return all(supply.exhausted for supply in self._supplies)

    @property
    def unsettled(self) -> int:
        """See `Supply`."""
        return sum(supply.unsettled for supply in self._supplies)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """See `Supply`. Can be cancelled: no batch is lost."""
        if not self._begun:
            self._begun = True
            for number in range(len(self._supplies)):
                self._ask(number)
        while self._asked:
            await asyncio.wait(self._asked, return_when=asyncio.FIRST_COMPLETED)
            # In the order in which they were asked: who has just given comes last.
            asked = next(asked for asked in self._asked if asked.done())
            number = self._asked.pop(asked)
            batch = asked.result()
            if batch is not None:
                self._ask(number)
                return batch
        raise StopAsyncIteration

    def _ask(self, number: int) -> None:
        self._asked[asyncio.ensure_future(anext(self._supplies[number], None))] = number

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, huge: Huge | None = None
    ) -> None:
        """See `Supply`."""
        self._of(batch.start).settle(batch, done, halve=halve, huge=huge)

    def settle_without(self, batch: Batch, done: int, file: int, *, again: bool) -> None:
        """See `Supply`."""
        self._of(batch.start).settle_without(batch, done, file, again=again)

    def end_pieces(self, number: int) -> None:
        """See `Supply`."""
        self._of(number).end_pieces(number)

    def stop(self) -> None:
        """See `Supply`."""
        for supply in self._supplies:
            supply.stop()

    async def aclose(self) -> None:
        """Ask for nothing more, whatever is on its way."""
        asked = list(self._asked)
        self._asked.clear()
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        for supply in self._supplies:
            await supply.aclose()

    def _of(self, number: int) -> Supply:
        return self._supplies[number // SOURCE_SPAN]
