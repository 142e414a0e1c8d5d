"""Users' programs at work on a stream's lines, elsewhere; the results in the order of the lines."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from asyncbatch.streams.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.records import Position
    from asyncbatch.streams.line_reader import Block
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

MOST_BYTES = 4 * 1024 * 1024
_MOST_JOBS = 1024
"""What is read ahead of results that are not taken: no more of either."""


class Job:
    """A piece of a source's lines, and what comes of it."""

    def __init__(self, source: str, piece: Piece) -> None:
        self.source, self.piece, self.after = source, piece, piece.after
        self.is_begun = False
        self.result: asyncio.Future[list[Block]] = asyncio.get_running_loop().create_future()

    def add(self, piece: Piece) -> None:
        """Take what follows on the piece too."""
        ours = self.piece
        self.piece = Piece(ours.file, ours.at, ours.lines + piece.lines)
        self.after = piece.after


class Programs(ABC):
    """Has programs read lines, and the stream take the results in order.

    `wake` is called when there is a result to be taken.
    """

    size: int
    """About how many bytes go together."""
    most_ahead = MOST_BYTES
    """How many bytes may be read ahead: less for slow programs, for a stop waits for them."""

    def __init__(self, stream: Stream, wake: Callable[[], None]) -> None:
        self._stream, self._wake = stream, wake
        self._jobs: deque[Job] = deque()
        self._bytes = 0

    @property
    def pids(self) -> Sequence[int]:
        """The process numbers of workers, if there are any."""
        return ()

    def send(self, source: str, file: str, lines: bytes) -> None:
        """Have a source's lines read, soon or together with more."""
        if not lines:
            return
        self._bytes += len(lines)
        for piece in Piece(file, self._place(source), lines).cut(self.size):
            last = self._jobs[-1] if self._jobs else None
            if (
                last is not None
                and not last.is_begun
                and (last.source, last.piece.file) == (source, file)
                and len(last.piece.lines) + len(piece.lines) <= self.size
            ):
                last.add(piece)
                continue
            job = Job(source, piece)
            self._jobs.append(job)
            self._begin(job)

    @property
    def has_result(self) -> bool:
        """Whether a result is to be taken before more is sent."""
        jobs = self._jobs
        is_much = self._bytes > self.most_ahead or len(jobs) > _MOST_JOBS
        return bool(jobs) and (jobs[0].result.done() or is_much)

    @property
    def is_busy(self) -> bool:
        """Whether something was sent whose result is not taken."""
        return bool(self._jobs)

    async def take(self) -> list[Window]:
        """Have the stream take the next result; return the windows that are then over."""
        job = self._jobs[0]
        blocks = await job.result
        self._stream.hear(waiting.source for waiting in self._jobs)
        self._jobs.popleft()
        self._bytes -= len(job.piece.lines)
        return self._stream.take_blocks(job.source, blocks, job.after)

    def give_back(self) -> Sequence[tuple[str, bytes]]:
        """Return what nobody has begun to work on, and will not: the last first."""
        given = []
        while self._jobs and not self._jobs[-1].is_begun:
            job = self._jobs.pop()
            self._drop(job)
            self._bytes -= len(job.piece.lines)
            given.append((job.source, job.piece.lines))
        return given

    @abstractmethod
    def _drop(self, job: Job) -> None:
        """Have a job that is not begun not done."""

    @abstractmethod
    def _begin(self, job: Job) -> None:
        """Have a job done when its turn comes; until then it may get more."""

    @abstractmethod
    async def close(self) -> None:
        """Give up what is not done."""

    def _forget(self) -> None:
        """Let nobody complain that a result was not taken."""
        for job in self._jobs:
            job.result.cancel()
            if not job.result.cancelled():
                job.result.exception()

    def _place(self, source: str) -> Position:
        """Return where a source's next lines are."""
        for job in reversed(self._jobs):
            if job.source == source:
                return job.after
        return self._stream.reader(source).place[0]
