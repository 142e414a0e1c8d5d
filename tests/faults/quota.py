"""A quota on a folder where the machine has none: made at the boundary of system calls.

`python tests/faults/quota.py SOCKET COMMAND...` starts a command whose writes the kernel asks us
about (seccomp's user notification; no privilege is needed), be they Python's or a library's. The
writes that would make the files below a folder exceed its limit fail with EDQUOT, as with a real
quota; all others go on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Machine(NamedTuple):
    """Numbers of an architecture: itself, and of system calls."""

    arch: int
    seccomp: int
    write: int
    pwrite: int
    fallocate: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, 1, 18, 285),
    "aarch64": _Machine(0xC00000B7, 277, 64, 68, 47),
}
_NEW_PRIVILEGES, _FILTER, _LISTEN, _CONTINUE = 38, 1, 8, 1
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_QUESTION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")


class Quota:
    """So many bytes at most in all files below `folder`; `prefix` puts a command under it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = str(folder), limit
        self.refusals = 0
        self._place = f"{folder}.quota"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self._place)
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command."""
        return sys.executable, __file__, self._place

    def close(self) -> None:
        """Take no more commands; those that there are must have ended."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        os.unlink(self._place)

    def _serve(self) -> None:
        with suppress(OSError):  # which is how we are told to end
            while True:
                client, _ = self._server.accept()
                with client:
                    _, (listener,), _, _ = socket.recv_fds(client, 1, 1)
                self._validator(listener)
                os.close(listener)

    def _validator(self, listener: int) -> None:
        """Answer the kernel's questions until nobody is left who could cause any."""
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while all(event & select.POLLIN for _, event in waiting.poll()):
            question = bytearray(_QUESTION.size)
            with suppress(FileNotFoundError):  # whoever asked was killed
                fcntl.ioctl(listener, _RECEIVE, question)
                number, thread, _, call, _, _, *arguments = _QUESTION.unpack(question)
                answer = _ANSWER.pack(number, 0, 0, _CONTINUE)
                if self._is_too_much(thread, call, arguments):
                    self.refusals += 1
                    answer = _ANSWER.pack(number, 0, -errno.EDQUOT, 0)
                fcntl.ioctl(listener, _SEND, bytearray(answer))

    def _is_too_much(self, thread: int, call: int, arguments: list[int]) -> bool:
        descriptor = arguments[0]
        try:
            path = os.readlink(f"/proc/{thread}/fd/{descriptor}")
            if not path.startswith(f"{self._folder}/"):
                return False
            size = os.stat(f"/proc/{thread}/fd/{descriptor}").st_size
            told = Path(f"/proc/{thread}/fdinfo/{descriptor}").read_text()
        except FileNotFoundError:  # a descriptor that is not open, or a thread that is gone
            return False
        machine = _MACHINES[platform.machine()]
        if call == machine.write:
            start, length = int(told.split()[1]), arguments[2]
        elif call == machine.pwrite:
            start, length = arguments[3], arguments[2]
        else:
            start, length = arguments[2:4]
        grows = max(0, start + length - size)
        return bool(grows) and self._used() + grows > self._limit

    def _used(self) -> int:
        return sum(path.stat().st_size for path in Path(self._folder).rglob("*") if path.is_file())


@contextmanager
def quota(folder: Path, limit: int) -> Iterator[Quota]:
    """Have a quota for a while."""
    held = Quota(folder, limit)
    try:
        yield held
    finally:
        held.close()


def is_possible() -> bool:
    """Whether this machine can have its system calls judged."""
    return sys.platform == "linux" and platform.machine() in _MACHINES


def _statement(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _listen() -> int:
    """Have this process and its children ask about their writes; return where."""
    machine = _MACHINES[platform.machine()]
    load, jump, end = 0x20, 0x15, 0x06
    calls = (machine.write, machine.pwrite, machine.fallocate)
    left = len(calls)
    program = [_statement(load, 4), _statement(jump, machine.arch, 0, left + 1)]
    program.append(_statement(load, 0))
    program += [_statement(jump, call, left - at) for at, call in enumerate(calls)]
    program += [_statement(end, 0x7FFF0000), _statement(end, 0x7FC00000)]
    text = ctypes.create_string_buffer(b"".join(program))
    filters = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(text)))
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener: int = system.syscall(machine.seccomp, _FILTER, _LISTEN, filters)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "no seccomp")
    return listener


def main() -> None:
    """Start a command under the quota that listens at a socket."""
    place, *command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        listener = _listen()
        socket.send_fds(client, [b" "], [listener])
    os.close(listener)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
