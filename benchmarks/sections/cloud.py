"""Many small objects of a store with a delay in each answer."""

from __future__ import annotations

import json
import os
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.measure import CommandError, interleave
from benchmarks.races import peer
from benchmarks.s3 import BUCKET, RECORDS, s3
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.s3 import Requests
    from benchmarks.setting import Setting

OBJECTS, QUICK_OBJECTS, DELAY = 2_000, 200, 0.02
THREADS = 64
SHAPE = "small objects"
OURS, ONE_BY_ONE = "asyncbatch run s3://", "boto3, one by one"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_REGION": "us-east-1",
}


def read_objects(setting: Setting) -> None:
    """Count the records of all objects, and the connections that each contender makes."""
    objects = setting.size(OBJECTS, QUICK_OBJECTS)
    os.environ.update(ENVIRONMENT)
    requests: dict[str, Requests] = {}
    with s3(DELAY, objects) as store:
        url = f"s3://{BUCKET}/exports/"
        boto3 = peer("boto3_objects", store.url, BUCKET)

        def check(name: str, output: bytes) -> None:
            requests[name] = store.requests()
            found = json.loads(output)
            records = found["records"]["passed"] if isinstance(found, dict) else found
            if records != objects * RECORDS:
                raise CommandError(f"{name}: {records} records, not {objects * RECORDS:,}")

        times = interleave(
            {
                OURS: [setting.asyncbatch, "run", url, "--endpoint", store.url, "-o", "json"],
                ONE_BY_ONE: [*boto3, "1"],
                f"boto3, {THREADS} threads": [*boto3, str(THREADS)],
            },
            setting.rounds,
            before=store.requests,
            check=check,
            fewer={ONE_BY_ONE: 1},
        )
    delay = DELAY * 1000
    print(
        f"{objects:,} objects, each answer after {delay:g} ms (a server that only reads: see s3.py)"
    )
    ours = median(times[OURS])
    rows = []
    for name, taken in times.items():
        seconds, came = median(taken), requests[name]
        goal = ("", "")
        if name == ONE_BY_ONE:
            goal = setting.results.add(goals.CLOUD, SHAPE, seconds / ours)
        elif name == OURS:
            reuse = came.number / came.connections
            goal = setting.results.add(goals.CLOUD_REUSE, SHAPE, reuse)
        rows.append(
            [
                name, f"{seconds:.2f}", f"{min(taken):.2f}-{max(taken):.2f}",
                f"{objects / seconds:,.0f}", f"{came.number:,}", f"{came.connections}",
                f"{came.number / came.connections:,.0f}", f"{seconds / ours:.2f}x", *goal,
            ]
        )  # fmt: skip
    header = ("", "median s", "range s", "objects/s", "requests", "connections", "reuse", "ratio")
    print_table((*header, "goal", ""), rows)
