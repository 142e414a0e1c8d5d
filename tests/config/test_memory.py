"""Memory limits: the plan, and real runs that stay within them."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.config.memory import min_memory, plan_memory
from asyncbatch.core import system as cgroups
from asyncbatch.core.settings import MIB, Sizes
from asyncbatch.core.system import memory_limit
from asyncbatch.errors import UsageError
from tests.commands import COMMAND, PATIENCE, environment


@given(st.integers(0, 2**36), st.integers(0, 64), st.booleans(), st.booleans())
def test_more_memory_never_makes_for_less(limit, workers, needs_process, has_library):
    job = {"needs_process": needs_process, "has_library": has_library}
    try:
        plan = plan_memory(limit, workers, **job)
    except UsageError:
        assert limit < min_memory(**job)
        return
    assert int(needs_process) <= plan.workers <= max(workers, int(needs_process))
    most = Sizes()
    for name in most.__struct_fields__:
        assert 0 < getattr(plan.sizes, name) <= getattr(most, name)
    roomy = plan_memory(2 * limit, workers, **job)
    assert roomy.workers >= plan.workers


@pytest.fixture
def group(tmp_path, monkeypatch):
    """The folder of a simulated control group with this process."""
    monkeypatch.setattr(cgroups, "CGROUP2", tmp_path)
    monkeypatch.setattr(cgroups, "CGROUP_MEMBERSHIPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("0::/jobs/nightly\n")
    (tmp_path / "jobs/nightly").mkdir(parents=True)
    return tmp_path / "jobs/nightly"


def test_the_tightest_limit_of_a_group_and_those_above_counts(group):
    assert memory_limit() is None
    (group / "memory.max").write_text("max\n")
    assert memory_limit() is None
    (group.parent / "memory.max").write_text("400000000\n")
    (group / "memory.high").write_text("500000000\n")
    assert memory_limit() == 400_000_000


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A folder of 12 MB files of lines, arrays and one JSON Lines file of 60 MB."""
    folder = tmp_path_factory.mktemp("big")
    record = {"id": 1, "name": "ada", "tags": [1.5, None, {"a": "b" * 40}], "text": "x" * 60}
    lines = (json.dumps(record) + "\n").encode() * 70_000
    (folder / "huge.jsonl").write_bytes(lines * 5)
    for number in range(3):
        (folder / f"{number}.jsonl").write_bytes(lines)
        (folder / f"{number}.json").write_bytes(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
    return folder


COLD = ("env",)  # a fork counts the modules of its parent too


@pytest.mark.xdist_group("big files")
@pytest.mark.parametrize("limit", [120, 240])
@pytest.mark.parametrize(
    "options",
    [(), ("--to", "out.jsonl"), ("--to", "sqlite:///out.db", "--table", "t")],
    ids=["checked", "lines", "table"],
)
def test_a_run_keeps_within_its_memory(run, big, limit, options):
    outcome = run(
        big, *options, "--max-memory", f"{limit}MiB", "-w", "2", "-o", "json", prefix=COLD
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["records"]["passed"] == 70_000 * 11
    assert outcome.json["peak_memory_bytes"] <= limit * MIB


def test_a_value_that_does_not_fit_is_too_large_and_the_rest_runs(run, files):
    files({"in/big.json": json.dumps({"a": ["x" * 1000] * 30_000}), "in/small.json": "[1, 2]"})
    outcome = run("in", "--max-memory", "120MiB", "--to", "o.jsonl", "-o", "json")
    assert outcome.code == 1
    assert [failure["kind"] for failure in outcome.json["failures"]] == ["too_large"]
    assert outcome.json["files"]["succeeded"] == 1


def test_too_little_is_refused(run, files):
    files({"a.json": "1"})
    outcome = run("a.json", "--max-memory", "10M")
    assert outcome.code == 2
    assert "--max-memory 10.5 MB is too small: this job needs at least" in outcome.stderr


@pytest.mark.xdist_group("big files")
def test_a_pipeline_keeps_within_its_memory(big, tmp_path):
    (tmp_path / "big.toml").write_text(f"""
        name = "big"
        [[source]]
        type = "files"
        paths = [{json.dumps(str(big))}]
        [[transform]]
        type = "jq"
        expr = "{{id, name}}"
        [sink]
        to = "sqlite:///out.db"
        table = "t"
    """)

    def etl(*options):
        return subprocess.run(
            [*COMMAND, "etl", "big.toml", "-w", "2", "-o", "json", *options], check=False,
            capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=PATIENCE,
        )  # fmt: skip

    limit = 240
    finished = etl("--max-memory", f"{limit}MiB")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["records"]["passed"] == 70_000 * 11
    assert summary["peak_memory_bytes"] <= limit * MIB
    too_little = etl("--max-memory", "10M")
    assert too_little.returncode == 2
    assert "is too small: this job needs at least" in too_little.stderr
