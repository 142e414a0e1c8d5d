"""Resident memory of this process and of its workers, in bytes."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.cgroups import groups

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_LIMIT = 2**60
_RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024


class Memory(NamedTuple):
    """Resident bytes now, and at the most so far (pages that are shared count in each process)."""

    current: int
    peak: int


def measure(pid: int | None = None) -> Memory:
    """Return the memory of process `pid` (default: this one); zeros for one that is gone.

    Where there is no /proc, only this process's peak is known, and stands for both.
    """
    try:
        with open(f"/proc/{pid or 'self'}/status", "rb") as stream:
            fields = dict(line.split(b":", 1) for line in stream if line.startswith(b"Vm"))
        return Memory(_kib(fields[b"VmRSS"]), _kib(fields[b"VmHWM"]))
    except (OSError, KeyError):  # KeyError: a zombie has no memory left to tell of
        if pid is not None:
            return Memory(0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT
    return Memory(peak, peak)


def measure_all(pids: Iterable[int]) -> Memory:
    """Return the memory of `pids`, added up; the sum of peaks is at least the peak of the sum."""
    parts = [measure(pid) for pid in pids]
    return Memory(sum(part.current for part in parts), sum(part.peak for part in parts))


def memory_limit() -> int | None:
    """Return the bytes that this process's cgroup and those above it may use, if limited."""
    limits = []
    for version, folder in groups("memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        for name in names:
            with suppress(OSError, ValueError):  # "max", or there is none
                limits.append(int((folder / name).read_text()))
    # The older groups have a number near 2^63 for no limit.
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def _kib(value: bytes) -> int:
    return int(value.split()[0]) * 1024
