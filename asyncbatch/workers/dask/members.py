"""The workers of a Dask cluster, and which of them are suitable for a run."""

from __future__ import annotations

import asyncio
import platform
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

import asyncbatch
from asyncbatch.errors import NoWorkerError, UsageError, described
from asyncbatch.workers.dask.worker import begin, end, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from distributed import Client

    from asyncbatch.workers.dask.worker import Setup

FIRST_SECONDS = 30.0  # How long the first worker of a cluster may take to join it.
NONE_SECONDS = 60.0  # How long there may be none.
_POLL_SECONDS = 1.0  # seconds between two polls of a small cluster; each poll lists all workers
_KEEP_SECONDS = 10.0
_ANSWER_SECONDS = 60.0  # time for a worker to check files and to start a process
_LAST_SECONDS = 1.5  # How long workers may take to hear of a run's end.
_GONE = ConnectionError()  # the reply of a worker that has left
# plain Python, valid also where this package is missing or has another version
_VERSIONS = "(__import__('platform').python_version(), __import__('asyncbatch').__version__)"


class ClusterMember:
    """A suitable worker: its threads; `left` is done when it has left."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        """How many batches wait there for being asked for more."""


class ClusterMembers:
    """The workers of a cluster, tracked as they come and go.

    `say` takes notes for the user. `lost` is done, with NoWorkerError, when no worker can come any
    more.
    """

    def __init__(self, client: Client, setup: Setup, say: Callable[[str], None]) -> None:
        self.members: dict[str, ClusterMember] = {}
        self.unfit: dict[str, str] = {}
        """Why a worker is not asked."""
        self.changed = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        """How many have left."""
        self._client, self._setup, self._say = client, setup, say
        self._is_begun = False
        self._being_asked: set[str] = set()

    @property
    def threads(self) -> int:
        """How many batches can be worked on at a time."""
        return sum(member.threads for member in self.members.values())

    @property
    def chosen(self) -> Sequence[str] | None:
        """The workers that may be asked; None for any."""
        return tuple(self.members) if self.unfit else None

    async def wait_for_first(self) -> None:
        """Wait for workers, and prepare them.

        Raises UsageError if there are none, or if one is unsuitable.
        """
        if not await self._present():
            self._say("Dask: waiting for workers")
            try:
                await self._client.wait_for_workers(1, timeout=FIRST_SECONDS)
            except TimeoutError:
                raise UsageError(
                    f"the Dask scheduler has no workers, after {FIRST_SECONDS:g} s of waiting for "
                    "one: start some with `dask worker ADDRESS`"
                ) from None
        await self._add(await self._present())
        if self.unfit:
            first, *others = (f"Dask worker {one} {why}" for one, why in self.unfit.items())
            raise UsageError(f"{first} (and {len(others):,} more are unfit)" if others else first)
        if not self.members:
            raise UsageError("the Dask scheduler names workers, but none of them answers")
        place = replace(self._setup.place, proof=None)  # it is only there for a moment
        self._setup = replace(self._setup, place=place)

    async def watch(self) -> None:
        """Follow the workers for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow(group)
        except ExceptionGroup as errors:  # any error of Dask: no other code sees it
            error = errors.exceptions[0]
            self.fail(f"the Dask scheduler does not answer any more ({described(error)})")

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """Poll the cluster; a worker that does not reply delays no other."""
        some, kept = time.monotonic(), time.monotonic()
        while not self.lost.done():
            await asyncio.sleep(max(_POLL_SECONDS, len(self.members) / 100))
            present = await self._present()
            self._drop(present)
            if new := self._new(present):
                group.create_task(self._add(new))
            if time.monotonic() - kept > _KEEP_SECONDS:
                kept = time.monotonic()
                await self._keep_alive()
            if self.members:
                some = time.monotonic()
            elif time.monotonic() - some > NONE_SECONDS:
                self.fail(f"no Dask worker is left, and for {NONE_SECONDS:g} s none has come")

    def fail(self, why: str) -> None:
        """Note that no worker can come any more."""
        if not self.lost.done():
            self.lost.set_exception(
                NoWorkerError(f"{why}; what is done is recorded, where that was asked for")
            )
            self.lost.exception()  # no task may be waiting
            self.changed.set()

    async def some(self) -> None:
        """Wait until there is a worker. Raises NoWorkerError."""
        while not self.members:
            if self.lost.done():
                self.lost.result()
            await asyncio.sleep(_POLL_SECONDS / 10)

    async def ready(self, address: str) -> None:
        """Prepare a worker that has just come or restarted."""
        present = await self._present()
        if address in present:
            await self._add({address: present[address]})

    async def dismiss(self) -> None:
        """Tell the workers that the run is over; tasks in progress end."""
        if not self.members or self.lost.done():
            return
        asking = self._client.run(
            end, self._setup.run, workers=list(self.members), on_error="ignore"
        )
        try:
            await asyncio.wait_for(asking, _LAST_SECONDS)
        except (OSError, TimeoutError):
            return  # they end it by themselves

    async def _present(self) -> dict[str, int]:
        """Return the present workers and their threads. Raises OSError."""
        told = await self._client.scheduler.identity()
        return {address: worker["nthreads"] for address, worker in told["workers"].items()}

    def _drop(self, present: dict[str, int]) -> None:
        """Note the workers that have left."""
        for address in [one for one in self.members if one not in present]:
            member = self.members.pop(address)
            member.left.set_result(None)
            self.left += 1
            self._say(
                f"Dask: worker {address} has left, {len(self.members):,} remain; what it had goes"
                " to others"
            )
        for address in [one for one in self.unfit if one not in present]:
            del self.unfit[address]

    def _new(self, present: dict[str, int]) -> dict[str, int]:
        """Return the workers that are neither known nor being prepared."""
        known = self.members.keys() | self.unfit.keys() | self._being_asked
        return {address: threads for address, threads in present.items() if address not in known}

    async def _add(self, new: dict[str, int]) -> None:
        """Prepare workers, or note why they are unsuitable; ignore those that have left."""
        self._being_asked |= new.keys()
        try:
            await self._check_and_add(new)
        finally:
            self._being_asked -= new.keys()

    async def _check_and_add(self, new: dict[str, int]) -> None:
        unfit = await self._unsuitable(new)
        alike = [address for address in new if address not in unfit]
        told = await self._replies(alike, begin, self._setup) if alike else {}
        for address in alike:
            why = told.get(address, _GONE)
            if why is None:
                self.members.setdefault(address, ClusterMember(new[address]))
            elif not _is_gone(why):
                unfit[address] = str(why)
        for address, why in unfit.items():
            if self._is_begun and address not in self.unfit:
                self._say(f"Dask: worker {address} is left out: it {why}")
        self.unfit |= unfit
        self._is_begun = True
        self.changed.set()

    async def _unsuitable(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return the workers with other software, and the difference."""
        ours = platform.python_version(), asyncbatch.__version__
        found = {}
        for address, theirs in (await self._replies(addresses, eval, _VERSIONS)).items():
            if _is_gone(theirs):
                continue
            if isinstance(theirs, ImportError | AttributeError):
                found[address] = f"has no asyncbatch (install {ours[1]} there): {theirs}"
            elif isinstance(theirs, Exception):
                found[address] = f"cannot be asked what it is: {described(theirs)}"
            elif theirs[1] != ours[1]:
                found[address] = f"has asyncbatch {theirs[1]}, and this is {ours[1]}"
            elif theirs[0].split(".")[:2] != ours[0].split(".")[:2]:
                found[address] = f"is of Python {theirs[0]}, and this is {ours[0]}"
        return found

    async def _replies(self, workers: Iterable[str], *call: Any) -> dict[str, Any]:
        """Return the result or exception of a function at each worker. Raises OSError."""
        asked = list(workers)
        asking = self._client.run(*call, workers=asked, on_error="return")
        try:
            told: dict[str, Any] = await asyncio.wait_for(asking, _ANSWER_SECONDS)
        except TimeoutError:
            late = TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s")
            told = dict.fromkeys(asked, late)
        return told

    async def _keep_alive(self) -> None:
        """Tell the workers that the run is alive, so that they keep results."""
        if some := [address for address, one in self.members.items() if one.waiting]:
            await self._replies(some, keep, self._setup.run)


def _is_gone(told: object) -> bool:
    """Whether this is the reply of an unreachable worker."""
    return isinstance(told, OSError) and not isinstance(told, TimeoutError)
