"""The number of usable CPUs: affinity and cgroup quotas."""

from __future__ import annotations

import gc
import os

import pytest

from asyncbatch.core import system as cgroups
from asyncbatch.core import system as cpus
from asyncbatch.core.system import delay_collection, leave_out_of_collection
from tests.conftest import python

COUNT = "from asyncbatch.core.system import usable_cpus; print(usable_cpus())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_respected():
    first = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{first}}}); {COUNT}"
    assert python(program).stdout == "1\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A simulated machine with 16 CPUs, whose cgroups a test defines."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cgroups, "CGROUP2", tmp_path / "v2")
    monkeypatch.setattr(cgroups, "CGROUP1", tmp_path / "v1")
    monkeypatch.setattr(cgroups, "CGROUP_MEMBERSHIPS", tmp_path / "cgroup")

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 16), ("400000 100000", 4), ("150000 100000", 2), ("1000 100000", 1)],
)
def test_the_quota_of_a_group(machine, quota, expected):
    machine("cgroup", "0::/jobs/nightly\n")
    machine("v2/jobs/nightly/cpu.max", quota)
    assert cpus.usable_cpus() == expected


def test_the_tightest_quota_of_the_groups_above_counts(machine):
    machine("cgroup", "0::/jobs/nightly\n")
    machine("v2/jobs/nightly/cpu.max", "800000 100000")
    machine("v2/jobs/cpu.max", "300000 100000")
    assert cpus.usable_cpus() == 3


def test_a_container_sees_its_own_group_at_the_root(machine):
    machine("cgroup", "0::/docker/0123abcd\n")
    machine("v2/cpu.max", "200000 100000")
    assert cpus.usable_cpus() == 2


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("250000", 3)])
def test_the_older_groups(machine, quota, expected):
    machine("cgroup", "4:cpu,cpuacct:/jobs\n2:memory:/jobs\n")
    machine("v1/cpu/jobs/cpu.cfs_quota_us", quota)
    machine("v1/cpu/jobs/cpu.cfs_period_us", "100000")
    assert cpus.usable_cpus() == expected


def test_without_groups_affinity_decides(machine):
    assert cpus.usable_cpus() == 16


def test_a_delayed_collection_begins_without_the_objects_that_there_are():
    thresholds = gc.get_threshold()
    try:
        delay_collection()
        assert gc.get_threshold()[0] > 50_000
        kept: list[list[int]] = [[] for _ in range(1000)]
        leave_out_of_collection()
        assert gc.get_threshold() == thresholds
        assert gc.get_freeze_count() > len(kept)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
