"""Memory that the main process and a worker share, for the large buffers of batches."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from asyncbatch.workers.wire import frame

if TYPE_CHECKING:
    import mmap

# As many batches are in flight: the worker has finished with a slot before its next turn.
SLOTS = 2


class SharedMessage(NamedTuple):
    """A pickle, and the start and the size of each of its buffers in shared memory."""

    body: bytes
    places: list[tuple[int, int]]


class SharedBuffer:
    """The slots for the buffers of batches. A socket would copy them in and out, in small parts.

    The main process writes each batch into the next slot, and the worker reads it from there. The
    `descriptor` is closed.
    """

    def __init__(self, descriptor: int) -> None:
        import mmap

        try:
            self._memory: mmap.mmap = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._slot_bytes = len(self._memory) // SLOTS
        self._turn = 0

    @classmethod
    def open(cls, descriptor: int | None) -> Self | None:
        """Return the buffer in a descriptor of `create_buffer`, or None."""
        return None if descriptor is None else cls(descriptor)

    def frame(self, batch: object) -> bytes:
        """Return the frame of a batch, with its buffers in a slot if they have room there.

        Fewer than `SLOTS` earlier batches may be in flight.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        if sum(view.nbytes for view in views) > self._slot_bytes:
            return frame(batch)
        at, places = self._turn * self._slot_bytes, []
        self._turn = (self._turn + 1) % SLOTS
        for view in views:
            self._memory[at : at + view.nbytes] = view
            places.append((at, view.nbytes))
            at += view.nbytes
        return frame(SharedMessage(body, places))

    def load(self, message: SharedMessage) -> Any:
        """Return the batch of a message. Its buffers are bytes."""
        buffers = [self._memory[start : start + size] for start, size in message.places]
        return pickle.loads(message.body, buffers=buffers)  # noqa: S301 - our own process


def create_buffer(slot_bytes: int) -> int | None:
    """Return the descriptor of a buffer for two processes; None where it would be on a disk."""
    if not slot_bytes or not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("asyncbatch-buffer")
    os.ftruncate(descriptor, SLOTS * slot_bytes)
    return descriptor
