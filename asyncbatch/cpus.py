"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from asyncbatch.cgroups import groups

if TYPE_CHECKING:
    from pathlib import Path


def usable_cpus() -> int:
    """Return the CPUs that affinity and the cgroup's quota leave this process (at least 1)."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, math.ceil(quota))) if quota else count


def _cgroup_quota() -> float | None:
    """Return the tightest quota, in CPUs, of this process's cgroup and those above it."""
    read = {1: _quota_v1, 2: _quota_v2}
    quotas = [read[version](folder) for version, folder in groups("cpu")]
    return min(filter(None, quotas), default=None)


def _quota_v2(folder: Path) -> float | None:
    """Read `cpu.max`: `$QUOTA $PERIOD`, or `max $PERIOD`."""
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
