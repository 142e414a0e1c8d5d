"""The workers of a Dask cluster, and which of them are suitable for a run."""

from __future__ import annotations

import asyncio
import platform
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

import asyncbatch
from asyncbatch.errors import NoWorkerError, UsageError, describe_error
from asyncbatch.workers.dask.worker import begin_run, end_run, keep_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from distributed import Client

    from asyncbatch.workers.dask.worker import RunSetup

FIRST_WORKER_SECONDS = 30.0  # time for the first worker to join
NO_WORKER_SECONDS = 60.0  # time without any worker before the run fails
_POLL_SECONDS = 1.0  # seconds between two polls of a small cluster; each poll lists all workers
_KEEP_ALIVE_SECONDS = 10.0
_REPLY_SECONDS = 60.0  # time for a worker to check files and to start a process
_END_SECONDS = 1.5  # time to tell the workers that the run ends
_UNREACHABLE = ConnectionError()  # the reply of a worker that has left
# plain Python, valid also where this package is missing or has another version
_VERSIONS = "(__import__('platform').python_version(), __import__('asyncbatch').__version__)"


class ClusterMember:
    """A suitable worker: its threads; `departure` is done when it has left."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.departure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending_results = 0  # results that the worker holds until they are fetched


class ClusterMembers:
    """The workers of a cluster, tracked as they come and go.

    `log` shows a message to the user. `failure` is done, with NoWorkerError, when no worker can
    join any more.
    """

    def __init__(self, client: Client, setup: RunSetup, log: Callable[[str], None]) -> None:
        self.members: dict[str, ClusterMember] = {}
        self.unsuitable: dict[str, str] = {}  # the reason, by address
        self.changed: asyncio.Event = asyncio.Event()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left_count: int = 0  # workers that have left
        self._client, self._setup, self._log = client, setup, log
        self._has_started = False
        self._being_checked: set[str] = set()

    @property
    def threads(self) -> int:
        """The number of batches that can run at the same time."""
        return sum(member.threads for member in self.members.values())

    @property
    def allowed_addresses(self) -> Sequence[str] | None:
        """The addresses of the workers that may get tasks; None for all."""
        return tuple(self.members) if self.unsuitable else None

    async def wait_for_first(self) -> None:
        """Wait for workers, and prepare them.

        Raises UsageError if there are none, or if one is unsuitable.
        """
        if not await self._list_workers():
            self._log("Dask: waiting for workers")
            try:
                await self._client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
            except TimeoutError:
                raise UsageError(
                    f"the Dask scheduler has no workers after {FIRST_WORKER_SECONDS:g} s: "
                    "start some with `dask worker ADDRESS`"
                ) from None
        await self._add(await self._list_workers())
        if self.unsuitable:
            first, *others = (f"Dask worker {one} {why}" for one, why in self.unsuitable.items())
            raise UsageError(
                f"{first} (and {len(others):,} more are unsuitable)" if others else first
            )
        if not self.members:
            raise UsageError("the Dask scheduler lists workers, but none of them answers")
        location = replace(self._setup.location, probe_path=None)  # it is only there for a moment
        self._setup = replace(self._setup, location=location)

    async def watch(self) -> None:
        """Follow the workers until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._poll(group)
        except ExceptionGroup as errors:  # any error of Dask: no other code sees it
            error = errors.exceptions[0]
            self.fail(f"the Dask scheduler does not answer any more ({describe_error(error)})")

    async def _poll(self, group: asyncio.TaskGroup) -> None:
        """Poll the cluster; a worker that does not reply delays no other."""
        some, kept = time.monotonic(), time.monotonic()
        while not self.failure.done():
            await asyncio.sleep(max(_POLL_SECONDS, len(self.members) / 100))
            present = await self._list_workers()
            self._remove_departed(present)
            if new := self._unknown(present):
                group.create_task(self._add(new))
            if time.monotonic() - kept > _KEEP_ALIVE_SECONDS:
                kept = time.monotonic()
                await self._keep_alive()
            if self.members:
                some = time.monotonic()
            elif time.monotonic() - some > NO_WORKER_SECONDS:
                self.fail(
                    f"no Dask worker is left, and none has joined for {NO_WORKER_SECONDS:g} s"
                )

    def fail(self, reason: str) -> None:
        """Note that no worker can join any more."""
        if not self.failure.done():
            self.failure.set_exception(
                NoWorkerError(f"{reason}; finished inputs are in the ledger, if there is one")
            )
            self.failure.exception()  # no task may be waiting
            self.changed.set()

    async def wait_for_any(self) -> None:
        """Wait until there is a worker. Raises NoWorkerError."""
        while not self.members:
            if self.failure.done():
                self.failure.result()
            await asyncio.sleep(_POLL_SECONDS / 10)

    async def prepare_again(self, address: str) -> None:
        """Prepare a worker that has just joined or restarted."""
        present = await self._list_workers()
        if address in present:
            await self._add({address: present[address]})

    async def end_run(self) -> None:
        """Tell the workers that the run is over; tasks in progress end."""
        if not self.members or self.failure.done():
            return
        asking = self._client.run(
            end_run, self._setup.run_id, workers=list(self.members), on_error="ignore"
        )
        try:
            await asyncio.wait_for(asking, _END_SECONDS)
        except (OSError, TimeoutError):
            return  # they end it by themselves

    async def _list_workers(self) -> dict[str, int]:
        """Return the present workers and their threads. Raises OSError."""
        replies = await self._client.scheduler.identity()
        return {address: worker["nthreads"] for address, worker in replies["workers"].items()}

    def _remove_departed(self, present: dict[str, int]) -> None:
        """Note the workers that have left."""
        for address in [one for one in self.members if one not in present]:
            member = self.members.pop(address)
            member.departure.set_result(None)
            self.left_count += 1
            self._log(
                f"Dask: worker {address} has left, {len(self.members):,} remain; its tasks go to"
                " others"
            )
        for address in [one for one in self.unsuitable if one not in present]:
            del self.unsuitable[address]

    def _unknown(self, present: dict[str, int]) -> dict[str, int]:
        """Return the workers that are neither known nor being prepared."""
        known = self.members.keys() | self.unsuitable.keys() | self._being_checked
        return {address: threads for address, threads in present.items() if address not in known}

    async def _add(self, new: dict[str, int]) -> None:
        """Prepare workers, or note why they are unsuitable; ignore those that have left."""
        self._being_checked |= new.keys()
        try:
            await self._check_and_add(new)
        finally:
            self._being_checked -= new.keys()

    async def _check_and_add(self, new: dict[str, int]) -> None:
        unfit = await self._find_unsuitable(new)
        alike = [address for address in new if address not in unfit]
        replies = await self._replies(alike, begin_run, self._setup) if alike else {}
        for address in alike:
            why = replies.get(address, _UNREACHABLE)
            if why is None:
                self.members.setdefault(address, ClusterMember(new[address]))
            elif not _is_unreachable(why):
                unfit[address] = str(why)
        for address, why in unfit.items():
            if self._has_started and address not in self.unsuitable:
                self._log(f"Dask: worker {address} is not used: it {why}")
        self.unsuitable |= unfit
        self._has_started = True
        self.changed.set()

    async def _find_unsuitable(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return the workers with other software, and the difference."""
        ours = platform.python_version(), asyncbatch.__version__
        found = {}
        for address, theirs in (await self._replies(addresses, eval, _VERSIONS)).items():
            if _is_unreachable(theirs):
                continue
            if isinstance(theirs, ImportError | AttributeError):
                found[address] = f"has no asyncbatch (install {ours[1]} there): {theirs}"
            elif isinstance(theirs, Exception):
                found[address] = f"cannot report its version: {describe_error(theirs)}"
            elif theirs[1] != ours[1]:
                found[address] = f"has asyncbatch {theirs[1]}, but this process has {ours[1]}"
            elif theirs[0].split(".")[:2] != ours[0].split(".")[:2]:
                found[address] = f"has Python {theirs[0]}, but this process has {ours[0]}"
        return found

    async def _replies(self, addresses: Iterable[str], *call: Any) -> dict[str, Any]:
        """Return the result or exception of a function at each worker. Raises OSError."""
        asked = list(addresses)
        asking = self._client.run(*call, workers=asked, on_error="return")
        try:
            replies: dict[str, Any] = await asyncio.wait_for(asking, _REPLY_SECONDS)
        except TimeoutError:
            late = TimeoutError(f"no answer within {_REPLY_SECONDS:g} s")
            replies = dict.fromkeys(asked, late)
        return replies

    async def _keep_alive(self) -> None:
        """Tell the workers that the run is alive, so that they keep results."""
        if some := [address for address, one in self.members.items() if one.pending_results]:
            await self._replies(some, keep_run, self._setup.run_id)


def _is_unreachable(replies: object) -> bool:
    """Whether this is the reply of an unreachable worker."""
    return isinstance(replies, OSError) and not isinstance(replies, TimeoutError)
