"""The program of a worker process: batches in, parts out."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import sys
from io import TextIOWrapper
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

from asyncbatch.core.batches import Part
from asyncbatch.core.progress import Progress
from asyncbatch.core.system import keep_freed_memory
from asyncbatch.errors import AsyncbatchError, WorkerBugError, valid_text
from asyncbatch.workers.shared_buffer import SharedBuffer, SharedMessage
from asyncbatch.workers.wire import LENGTH_BYTES, STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.workers.engine import Work, WorkFactory

# New objects before a garbage collection (Python's default: 700). JSON has no cycles.
_GC_THRESHOLD = 100_000
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def main(
    requests_descriptor: int,
    replies_descriptor: int,
    progress_descriptor: int,
    buffer_descriptor: int | None,
) -> None:
    """Process batches until the main process closes the request socket, or dies."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if isinstance(sys.stdout, TextIOWrapper):  # a process that is killed, or exits, flushes nothing
        sys.stdout.reconfigure(line_buffering=True)
    _die_with_parent()
    # The descriptors are sockets; each is used in one direction, as a file.
    requests, replies = os.fdopen(requests_descriptor, "rb"), os.fdopen(replies_descriptor, "wb")
    progress = Progress.shared(progress_descriptor)
    buffer = SharedBuffer.open(buffer_descriptor)
    make_work = _receive(requests)
    if make_work is not None:
        _serve(make_work, requests, replies, progress, buffer)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to tidy up, and the main process waits


def _serve(
    make_work: WorkFactory,
    requests: BinaryIO,
    replies: BinaryIO,
    progress: Progress,
    buffer: SharedBuffer | None,
) -> None:
    work: Work | None = None
    # JSON has no cycles: looking for them among so many values takes a third of the time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    keep_freed_memory()
    while (batch := _receive(requests)) is not None:
        if buffer is not None and isinstance(batch, SharedMessage):
            batch = buffer.load(batch)
        try:
            if work is None:
                work = make_work()
                if (abandon := getattr(work, "abandon", None)) is not None:
                    watching = requests.fileno(), abandon
                    Thread(target=_abandon_at_end, args=watching, daemon=True).start()
                # without it, the guilty file is found by halving batches
                if hasattr(work, "progress"):
                    work.progress = progress
            progress.begin_batch()
            for part in work(batch):
                progress.begin_waiting()
                _send(replies, part)
                progress.end_waiting()
            progress.end_batch()
            _send(replies, None)
        except BrokenPipeError:
            return
        except AsyncbatchError as error:
            _send(replies, error)
        except Exception:  # noqa: BLE001 - crosses to the main process, which raises it
            import traceback

            _send(replies, WorkerBugError(valid_text(traceback.format_exc())))


def _abandon_at_end(descriptor: int, abandon: Callable[[], None]) -> None:
    """Wait until the main process closes its socket; then clean up and exit."""
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is reported without being asked for
    poll.poll()
    abandon()
    os._exit(0)


def _send(replies: BinaryIO, message: Part | AsyncbatchError | None) -> None:
    payload: bytes | bytearray = b""
    if isinstance(message, Part) and message.rows is not None:
        payload, message.rows.payload = message.rows.payload, b""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    replies.write(b"".join((*map(_encode_length, (body, payload)), body)))
    replies.write(payload)
    replies.flush()


def _encode_length(data: bytes | bytearray) -> bytes:
    return len(data).to_bytes(LENGTH_BYTES)


def _receive(requests: BinaryIO) -> Any:
    header = requests.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    return pickle.loads(requests.read(int.from_bytes(header)))  # noqa: S301 - our own process


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, even during C code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
