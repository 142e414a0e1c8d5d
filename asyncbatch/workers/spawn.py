"""The start of a worker process. Needs no event loop, so that it can come first."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import NamedTuple

from asyncbatch.core.progress import Progress, create_shared_memory
from asyncbatch.workers.shared_buffer import SharedBuffer, create_buffer
from asyncbatch.workers.wire import STOP_SIGNALS

# msgspec imports typing_extensions if it can, and with it inspect, ast and tokenize: a sixth of the
# start of a worker. It needs them only for Python versions before ours.
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
sys.modules["typing_extensions"] = None
import msgspec
del sys.modules["typing_extensions"]
from asyncbatch.workers.main import main
main{descriptors!r}
"""
_STDERR = 2
# A worker goes on while the main process writes the rows of its last part. Linux limits this number
# by net.core.wmem_max, which is 208 KB in older versions, and takes the largest that it allows.
REPLY_BUFFER_BYTES = 2 * 1024 * 1024
_EXIT_SECONDS = 5.0  # time for a killed process to end; one in an I/O call of a device may not


def choose_workers(
    wanted: int | None, default: int, *, needs_process: bool = False, must_stay: bool = False
) -> int:
    """Return the number of worker processes, for the user's number if there is one.

    `must_stay`: the work is possible in this process only.
    """
    count = default if wanted is None else wanted
    return 0 if must_stay else max(count, int(needs_process))


class WorkerHandle(NamedTuple):
    """A started worker process, its sockets, its progress, and perhaps memory for batches.

    There are two sockets: a write error on a dead worker would end the reading of its last results.
    """

    process: subprocess.Popen[bytes]
    requests: socket.socket
    replies: socket.socket
    progress: Progress
    buffer: SharedBuffer | None = None


def spawn(*, reads_stdin: bool = False, slot_bytes: int = 0) -> WorkerHandle:
    """Start a worker as a new program, with our standard input or none. Raises OSError.

    `slot_bytes` is the size of a batch for which there is room in shared memory.
    """
    (our_requests, its_requests), (our_replies, its_replies) = (
        socket.socketpair(),
        socket.socketpair(),
    )
    its_replies.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REPLY_BUFFER_BYTES)
    cell, buffer = create_shared_memory(), create_buffer(slot_bytes)
    with its_requests, its_replies:
        descriptors = its_requests.fileno(), its_replies.fileno(), cell, buffer
        program = _PROGRAM.format(path=sys.path, descriptors=descriptors)
        # Blocked signals stay so across exec: no stop signal can hit a worker that has not
        # set its signal handlers yet.
        # `-P`: nothing is imported from the current folder before the path is set.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-c", program],
                stdin=None if reads_stdin else subprocess.DEVNULL,
                stdout=_STDERR,  # the prints of user code must not mix with results
                pass_fds=[one for one in descriptors if one is not None],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            progress, shared = Progress.shared(cell), SharedBuffer.open(buffer)
    return WorkerHandle(process, our_requests, our_replies, progress, shared)


def end_process(process: subprocess.Popen[bytes], grace: float = 0.0) -> str:
    """Kill a worker that does not exit within `grace` seconds; return how it ended."""
    if grace:
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    if process.poll() is None:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_SECONDS)
    code: int | None = process.returncode
    if code is None:
        return "cannot be ended, because it waits for a device or a server,"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
