"""Facts about running processes that a test can wait for."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from contextlib import suppress
from pathlib import Path

from tests.commands import PATIENCE

_POLL_SECONDS = 0.01


def wait_until(condition, within=PATIENCE, *, running=None):
    """Wait until `condition()` holds.

    Fails after `within` seconds, or when the process `running` has ended and it does not hold.
    """
    deadline = time.monotonic() + within
    while not condition():
        if running is not None and running.poll() is not None:
            assert condition(), f"the process ended with {running.returncode}"
            return
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(_POLL_SECONDS)


def wait_until_still(measure, seconds=0.5):
    """Wait until `measure()` gives the same value twice, `seconds` apart, and return the value.

    For what a process does before it is held up. A test must hold too if it is held up later.
    """
    value = measure()
    while True:
        time.sleep(seconds)
        before, value = value, measure()
        if value == before:
            return value


def children(pid: int) -> list[int]:
    """Return the process numbers of the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "\nState:\tZ" not in status


def open_links(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to: paths, and names of sockets and pipes."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(descriptor))
    return links


def holds_open(pid: int, path: str | Path) -> bool:
    """Whether a process, or a child of it, has a file open."""
    return any(os.fspath(path) in open_links(owner) for owner in (pid, *children(pid)))


def waiting_bytes(pipe) -> int:
    """Return the number of bytes in a pipe that were not read."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
    return int(count)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
