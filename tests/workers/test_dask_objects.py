"""A cluster together with object stores."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until

pytestmark = pytest.mark.xdist_group("dask")  # one cluster for all

COUNT = 120
CLEAN = """
import os, time

def clean(record):
    if record["n"] == 7:
        raise ValueError("unclean")
    while os.path.exists("wait"):
        time.sleep(0.01)
    return {"n": record["n"], "text": "x" * 200_000}
"""


@pytest.fixture
def exports(s3, request):
    """A bucket with objects below `exports/`, named after the test."""
    name = re.sub("[^a-z]+", "-", request.node.name)[:60].strip("-")
    objects = {f"exports/{n // 50}/{n:03}.json": json.dumps([{"n": n}]) for n in range(COUNT)}
    objects["exports/bad.json"] = "[1,"
    s3.bucket(name, objects)
    return name


def command(cluster, s3, bucket, *options):
    return (
        "run", f"s3://{bucket}/exports/", "--engine", "dask", "--scheduler", cluster.address,
        "--to", f"s3://{bucket}/clean/", "--endpoint", s3.url, *options,
    )  # fmt: skip


def test_from_a_store_to_a_store_by_a_cluster(cluster, s3, exports, run, files):
    """The same objects, failures, report and exit status as by processes of this machine."""
    files({"clean.py": CLEAN.replace("200_000", "2_000")})
    found = []
    for engine in ((), ("-w", "2", "--engine", "local")):
        arguments = command(cluster, s3, exports, "--call", "clean.py:clean", "-o", "json")
        arguments = tuple(one for one in arguments if not engine or one != cluster.address)
        if engine:
            at = arguments.index("--engine")
            arguments = (*arguments[:at], *arguments[at + 3 :], *engine)
        outcome = run(*arguments, env=s3.environment)
        keys = [key for key in s3.keys(exports) if not key.startswith("exports/")]
        objects = {key: s3.get(exports, key) for key in keys}
        report = outcome.json
        assert report["records"] == {
            "read": COUNT, "passed": COUNT - 1, "dropped": 0, "rejected": 1, "written": COUNT - 1,
        }  # fmt: skip
        assert bool(report.get("dask")) is not bool(engine)
        found.append((outcome.code, objects, report["files"], report["failures"]))
        for key in keys:
            s3.client.delete_object(Bucket=exports, Key=key)
    assert found[0] == found[1]
    assert found[0][0] == 1
    assert len(found[0][1]) == COUNT - 1


def test_what_is_in_the_store_is_not_done_again(cluster, s3, exports, run, files):
    files({"clean.py": CLEAN.replace("200_000", "10")})
    options = ("--call", "clean.py:clean", "--resume", "-o", "json")
    first = run(*command(cluster, s3, exports, *options), env=s3.environment)
    assert first.json["files"]["succeeded"] == COUNT - 1
    s3.put(exports, "exports/0/000.json", '[{"n": 1000}]')
    again = run(*command(cluster, s3, exports, *options), env=s3.environment)
    assert again.json["files"]["skipped"] == COUNT - 2
    assert json.loads(s3.get(exports, f"clean/{exports}/exports/0/000.json"))[0]["n"] == 1000


@pytest.mark.parametrize("victim", ["the run", "a worker"])
def test_nothing_half_done_is_left(cluster, s3, exports, files, victim):
    """A run that is stopped leaves no upload; a worker that is killed costs no object."""
    folder = files({"clean.py": CLEAN})
    arguments = command(cluster, s3, exports, "--call", "clean.py:clean", "-b", "5", "-q")
    with CommandProcess(
        [*arguments], cwd=folder, env=environment(**s3.environment),
        stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            wait_until(lambda: any(key.startswith("clean/") for key in s3.keys(exports)))
            if victim == "the run":
                running.send_signal(signal.SIGINT)
            else:
                cluster.workers[1].kill()
            _, told = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert running.returncode == (130 if victim == "the run" else 1), told
    whole = {len(s3.get(exports, key)) for key in s3.keys(exports) if key.startswith("clean/")}
    assert len(whole) <= 3  # numbers of one, two and three digits
    wait_until(lambda: not s3.uploads(exports))
    if victim == "a worker":
        assert sum(key.startswith("clean/") for key in s3.keys(exports)) == COUNT - 1
