"""The start of a worker process. Needs no event loop, so that it can come first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from asyncbatch.core.progress import Progress, create_shared_memory
from asyncbatch.workers.shared_buffer import SharedBuffer, create_buffer
from asyncbatch.workers.wire import STOP_SIGNALS

if TYPE_CHECKING:
    # of the two sockets, the progress, and the memory for batches
    Descriptors = tuple[int, int, int, int | None]

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
_STDIN, _STDOUT, _STDERR = range(3)
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


class ChildProcess(Protocol):
    """A child process, with methods of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, for at most `timeout` seconds. Raises TimeoutExpired."""

    def kill(self) -> None:
        """Kill it, if it still runs."""


class WorkerHandle(NamedTuple):
    """A started worker process, its sockets, its progress, and perhaps memory for batches.

    There are two sockets: a write error on a dead worker would end the reading of its last results.
    """

    process: ChildProcess
    requests: socket.socket
    replies: socket.socket
    progress: Progress
    buffer: SharedBuffer | None = None


def spawn(
    *, reads_stdin: bool = False, slot_bytes: int = 0, may_fork: bool = False
) -> WorkerHandle:
    """Start a worker, with our standard input or none. Raises OSError.

    `slot_bytes` is the size of a batch for which there is room in shared memory. With `may_fork` it
    is a copy of this process where that is safe: it is ready at once.
    """
    (our_requests, its_requests), (our_replies, its_replies) = (
        socket.socketpair(),
        socket.socketpair(),
    )
    its_replies.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REPLY_BUFFER_BYTES)
    cell, buffer = create_shared_memory(), create_buffer(slot_bytes)
    with its_requests, its_replies:
        descriptors = its_requests.fileno(), its_replies.fileno(), cell, buffer
        # Blocked signals stay so in the new process: no stop signal can hit a worker that has not
        # set its signal handlers yet.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            if may_fork and has_one_thread():
                process: ChildProcess = ForkedProcess(descriptors, reads_stdin=reads_stdin)
            else:
                process = start_program(descriptors, reads_stdin=reads_stdin)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            progress, shared = Progress.shared(cell), SharedBuffer.open(buffer)
    return WorkerHandle(process, our_requests, our_replies, progress, shared)


def start_program(descriptors: Descriptors, *, reads_stdin: bool) -> ChildProcess:
    """Start a worker as a new interpreter. Raises OSError."""
    program = _PROGRAM.format(path=sys.path, descriptors=descriptors)
    # `-P`: nothing is imported from the current folder before the path is set.
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-c", program],
        stdin=None if reads_stdin else subprocess.DEVNULL,
        stdout=_STDERR,  # the prints of user code must not mix with results
        pass_fds=[one for one in descriptors if one is not None],
    )


def has_one_thread() -> bool:
    """Whether this process has a single thread. A copy lacks the others, but has their locks."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # those of libraries, too
    except OSError:  # this is not Linux
        return False


_POLL_SECONDS = 0.002


class ForkedProcess:
    """A worker that is a copy of this process, with methods of `subprocess.Popen`.

    It has no import to do: two new interpreters take 0.1 s until they work. Raises OSError.
    """

    def __init__(self, descriptors: Descriptors, *, reads_stdin: bool) -> None:
        self.returncode: int | None = None
        self._lock = Lock()
        for stream in (sys.stdout, sys.stderr):  # else both processes would write their buffers
            with suppress(OSError):  # this process will meet it again
                stream.flush()
        self.pid: int = os.fork()
        if not self.pid:
            _become_worker(descriptors, reads_stdin=reads_stdin)

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def kill(self) -> None:
        with self._lock:
            if self.returncode is None:
                os.kill(self.pid, signal.SIGKILL)


def _become_worker(descriptors: Descriptors, *, reads_stdin: bool) -> NoReturn:
    """Turn this process, a new copy, into a worker. It never returns into the code of the other."""
    try:
        from asyncbatch.workers.main import main

        if not reads_stdin:
            os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)
        os.dup2(_STDERR, _STDOUT)  # the prints of user code must not mix with results
        kept = {_STDIN, _STDOUT, _STDERR, *descriptors}
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor not in kept:
                with suppress(OSError):  # that of the listing is closed by now
                    os.close(descriptor)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):  # a new program resets them, too
                signal.signal(number, signal.SIG_DFL)
        main(*descriptors)
    except BaseException as error:  # noqa: BLE001 - an interpreter does the same at its end
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(1)


def end_process(process: ChildProcess, grace: float = 0.0) -> str:
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
