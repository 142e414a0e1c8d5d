"""A worker process behind a thread: what `process` is to the event loop, for a Dask worker."""

from __future__ import annotations

import math
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.executors.lanes import Loss
from asyncbatch.executors.spawn import end, spawn
from asyncbatch.executors.wire import LENGTH_BYTES, frame
from asyncbatch.memory import measure
from asyncbatch.progress import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

STRETCH_BYTES = 16 * 1024 * 1024
"""So much of what becomes of a batch is handed on at a time, ..."""
STRETCH_SECONDS = 2.0
"""... or what there is of it after so long."""
WHOLE_BYTES = 256 * 1024 * 1024
"""So much, however long it takes, of what must not be lost in its midst."""
_SHORTEST_LOOK, _LONGEST_LOOK = 0.01, 0.5
"""Seconds from one look at a worker that says nothing to the next."""
_END = frame(None)[LENGTH_BYTES:]
"""What a worker says at a batch's end."""


class Stretch(Struct, frozen=True):
    """What a worker has said: pickles, each beside its rows (see `wire`).

    Of a batch that is not `ended` there is more to come, unless there is a `loss`. `pid` is the
    worker's, `memory` its peak in bytes.
    """

    frames: list[tuple[bytes | bytearray, bytes | bytearray]]
    ended: bool
    loss: Loss | None
    pid: int
    memory: int


class UnwantedError(Exception):
    """Nobody waits for the result any more; the worker is ended."""


class Relay:
    """Has one worker process do batches, one at a time; used by one thread at a time.

    `hello` is the frame that begins the talk, `patience` for how many seconds a worker may be at
    one file, `grace` for how many it may leave things tidy. Raises OSError if no process can be
    started.
    """

    def __init__(self, hello: bytes, patience: float | None, grace: float = 0.0) -> None:
        spawned = spawn()
        self._grace = grace
        self._process, self._progress = spawned.process, spawned.progress
        self._requests, self._replies = spawned.requests, spawned.replies
        longest = _LONGEST_LOOK if patience is None else patience / 20
        self._interval = min(max(longest, _SHORTEST_LOOK), _LONGEST_LOOK)
        self._replies.settimeout(self._interval)
        self._stopwatch = None if patience is None else Stopwatch(patience, self._interval)
        self._late: int | None = None  # the file that the process was killed for
        self._looked = 0.0
        self._send(hello)

    def begin(self, request: bytes) -> None:
        """Have a batch done; `request` is its frame."""
        self._send(request)

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # a worker that is dead; `stretch` tells
            self._requests.sendall(data)

    def stretch(self, is_wanted: Callable[[], bool], *, whole: bool = False) -> Stretch:
        """Return what comes next of the batch, `whole` if that can be. Raises UnwantedError."""
        frames: list[tuple[bytes | bytearray, bytes | bytearray]] = []
        most = WHOLE_BYTES if whole else STRETCH_BYTES
        size, deadline = 0, time.monotonic() + (math.inf if whole else STRETCH_SECONDS)
        ended, loss = False, None
        while not ended and size < most:
            if frames and time.monotonic() > deadline:
                break
            try:
                body, rows = self._receive(is_wanted)
            except (EOFError, ConnectionError):
                loss = self._loss()
                break
            ended = body == _END
            if not ended:
                frames.append((body, rows))
                size += len(body) + len(rows)
        return Stretch(frames, ended, loss, self._process.pid, measure(self._process.pid).peak)

    def _receive(self, is_wanted: Callable[[], bool]) -> tuple[bytearray, bytearray]:
        lengths = self._read(2 * LENGTH_BYTES, is_wanted)
        body = self._read(int.from_bytes(lengths[:LENGTH_BYTES]), is_wanted)
        return body, self._read(int.from_bytes(lengths[LENGTH_BYTES:]), is_wanted)

    def _read(self, count: int, is_wanted: Callable[[], bool]) -> bytearray:
        """Return so many bytes. Raises EOFError, ConnectionError, UnwantedError."""
        data, at = bytearray(count), 0
        with memoryview(data) as view:
            while at < count:
                if time.monotonic() - self._looked > self._interval:
                    self._look(is_wanted)
                try:
                    got = self._replies.recv_into(view[at:])
                except TimeoutError:
                    continue
                if not got:
                    raise EOFError
                at += got
        return data

    def _look(self, is_wanted: Callable[[], bool]) -> None:
        """End the process if it is late with a file, or not wanted."""
        now = self._looked = time.monotonic()
        if not is_wanted():
            self.kill()
            raise UnwantedError
        if self._stopwatch is not None and self._late is None:
            self._late = self._stopwatch.look(self._progress, now)
            if self._late is not None:
                self._process.kill()
                with suppress(OSError):  # processes of the user's function may keep it open
                    self._replies.shutdown(socket.SHUT_RD)

    def _loss(self) -> Loss:
        how, progress = self.kill(), self._progress
        # If it was just then through with it, nobody is late, and nobody guilty.
        timed_out = self._late is not None and self._late == progress.file
        file = None if self._late is not None and not timed_out else progress.file
        return Loss(how, file, progress.in_batch, timed_out)

    def interrupt(self) -> None:
        """End the process from another thread than that which uses this, and which then sees it."""
        with suppress(OSError):  # it has ended
            self._requests.shutdown(socket.SHUT_RDWR)
        if not self._grace:
            self._process.kill()

    def kill(self) -> str:
        """End the process, if it has not ended; return how it ended."""
        self._requests.close()
        self._replies.close()
        return end(self._process, self._grace)
