"""CPUs and memory of this process, within the limits of its cgroup, proxies and installation."""

from __future__ import annotations

import gc
import math
import os
import resource
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CGROUP_MEMBERSHIPS = "/proc/self/cgroup"
CGROUP2 = "/sys/fs/cgroup"
CGROUP1 = "/sys/fs/cgroup"


def cgroup_folders(controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the folders of this process's cgroup and its parents, each with its version."""
    from pathlib import Path  # here: a worker does not need it, and it is slow to import

    try:
        memberships = Path(CGROUP_MEMBERSHIPS).read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        number, controllers, path = membership.split(":", 2)
        if number == "0":
            version, base = 2, Path(CGROUP2)
        elif controller in controllers.split(","):
            version, base = 1, Path(CGROUP1) / controller
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be the host's: a missing folder is skipped.
        for folder in (group, *group.parents):
            if base in (folder, *folder.parents):
                yield version, folder


def usable_cpus() -> int:
    """Return the number of CPUs within affinity and cgroup quota, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, math.ceil(quota))) if quota else count


def _cgroup_quota() -> float | None:
    """Return the lowest quota, in CPUs, of this process's cgroup and its parents."""
    read = {1: _quota_v1, 2: _quota_v2}
    quotas = [read[version](folder) for version, folder in cgroup_folders("cpu")]
    return min(filter(None, quotas), default=None)


def _quota_v2(folder: Path) -> float | None:
    """Return the quota in CPUs of `cpu.max`: `$QUOTA $PERIOD`, or `max $PERIOD`."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


_NO_LIMIT = 2**60
_RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024


class Memory(NamedTuple):
    """Resident memory now, and at the peak, in bytes.

    Memory that processes share counts in each of them.
    """

    current: int
    peak: int


def measure_memory(pid: int | None = None) -> Memory:
    """Return the memory of process `pid`, by default this one; zeros if it has ended.

    Without /proc only the peak of this process is known; it then stands for both numbers.
    """
    try:
        with open(f"/proc/{pid or 'self'}/status", "rb") as stream:
            fields = dict(line.split(b":", 1) for line in stream if line.startswith(b"Vm"))
        return Memory(_kib(fields[b"VmRSS"]), _kib(fields[b"VmHWM"]))
    except (OSError, KeyError):  # KeyError: a zombie has no memory
        if pid is not None:
            return Memory(0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT
    return Memory(peak, peak)


def sum_memory(pids: Iterable[int]) -> Memory:
    """Return the sum of the memory of `pids`.

    The sum of the peaks is at least the peak of the sum.
    """
    parts = [measure_memory(pid) for pid in pids]
    return Memory(sum(part.current for part in parts), sum(part.peak for part in parts))


def memory_limit() -> int | None:
    """Return the lowest memory limit in bytes of this process's cgroups, or None."""
    limits = []
    for version, folder in cgroup_folders("memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        for name in names:
            with suppress(OSError, ValueError):  # the value is "max", or there is no such file
                limits.append(int((folder / name).read_text()))
    # cgroup v1 writes a number near 2^63 if there is no limit.
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def _kib(value: bytes) -> int:
    return int(value.split()[0]) * 1024


# Of mallopt (malloc.h of glibc). The bytes are two windows, and what some of them leave behind:
# with more, an array of elements of 30 MB takes more memory, and nothing is faster.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK = 8 * 1024 * 1024
_KEPT_BYTES = 32 * 1024 * 1024  # free memory that the heap keeps at its end


def keep_freed_memory() -> None:
    """Have the heap keep freed memory for the next buffers. For a process of our own.

    Each window of a large file has buffers of some MB. By default glibc gives such blocks back, and
    the kernel clears new pages for the next window: a third of the time of a large array.
    """
    import ctypes

    with suppress(OSError, AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


_COLLECTOR_THRESHOLDS = gc.get_threshold()
_START_THRESHOLD = 100_000  # new objects; the modules of a command have some 35,000


def delay_collection() -> None:
    """Delay garbage collection while modules are imported: their objects stay."""
    gc.set_threshold(_START_THRESHOLD)


def leave_out_of_collection() -> None:
    """Leave all objects that there are out of garbage collection, which begins again.

    Without that, each full collection looks at the modules, and the last one at the exit takes
    25 ms.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause garbage collection, which takes most of the time while many objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def proxy_for(scheme: str, authority: str) -> str | None:
    """Return the URL of the proxy that the environment names for a server, or None.

    NO_PROXY may also have networks, as 10.0.0.0/8, and ALL_PROXY is for all schemes without a
    variable of their own: curl and Python's requests do the same. A SOCKS proxy in ALL_PROXY is for
    other programs.
    """
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(scheme)
    if not proxy and not proxies.get("all", "").startswith("socks"):
        proxy = proxies.get("all")
    if not proxy or proxy_bypass(authority) or _is_in_networks(authority, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_in_networks(authority: str, excluded: str) -> bool:
    """Whether the host of an authority is an address in one of the networks in a list."""
    networks = [text.strip() for text in excluded.split(",") if "/" in text]
    if not networks:
        return False
    from ipaddress import ip_address, ip_network
    from urllib.parse import urlsplit

    try:
        address = ip_address(urlsplit(f"//{authority}").hostname or "")
    except ValueError:  # a name
        return False
    for text in networks:
        with suppress(ValueError):  # not a network
            if address in ip_network(text, strict=False):
                return True
    return False


def package_command(package: str) -> str:
    """Return the command that adds a package to this installation. See `install_command`."""
    place = sys.prefix.replace(os.sep, "/")
    if "/pipx/venvs/" in place:
        return f"pipx inject asyncbatch {package}"
    if "/uv/tools/" in place:
        return f"uv tool install --with {package} asyncbatch"
    return f"pip install {package}"


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    pipx and uv keep a tool in an environment of its own, which plain pip does not reach.
    """
    place = sys.prefix.replace(os.sep, "/")
    package = f"'asyncbatch[{extra}]'"
    if "/pipx/venvs/" in place:
        return f"pipx install --force {package}"
    if "/uv/tools/" in place:
        return f"uv tool install --force {package}"
    return f"pip install {package}"


def stdout_file() -> str | None:
    """Return the path of the regular file that standard output goes to, None without one."""
    try:
        number = (sys.__stdout__ or sys.stdout).fileno()
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            return None
        path = os.path.realpath(f"/dev/fd/{number}")
        return path if os.path.samestat(os.stat(path), status) else None
    except (OSError, ValueError, AttributeError):  # it is closed, or no file of the system
        return None
