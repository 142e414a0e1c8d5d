"""The header of a CSV file: the fields of the first records, however slowly these come."""

from __future__ import annotations

import csv
import json

import pytest

SLOW = """
import time

def slow(record):
    if record["id"] in (2, 5):
        time.sleep(1.2)  # longer than rows wait for others
    return record

async def slow_async(record):
    import asyncio
    if record["id"] in (2, 5):
        await asyncio.sleep(1.2)
    return record
"""
FILES = 300  # more parts than wait for a load


def records():
    """Records whose last ones have a field that no earlier one has."""
    return [
        {"id": number, "name": f"n{number}", **({"phone": "1"} if number > FILES - 4 else {})}
        for number in range(FILES)
    ]


def expected():
    return [[str(record["id"]), record["name"], record.get("phone", "")] for record in records()]


@pytest.mark.parametrize("how", [
    ("--call", "fn.py:slow", "-w", "2", "-b", "1"),
    ("--call", "fn.py:slow", "-w", "1", "-b", "7", "--unordered"),
    ("--call", "fn.py:slow_async", "--call-concurrency", "1", "-b", "1"),
    ("-b", "1"),
    ("-w", "2"),
])  # fmt: skip
def test_slow_records_and_small_batches_do_not_change_the_columns(run, files, how):
    folder = files({"fn.py": SLOW})
    files({f"in/{record['id']:03}.json": json.dumps(record) for record in records()})
    outcome = run("in", "--to", "out.csv", *how, "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    with (folder / "out.csv").open(newline="") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["id", "name", "phone"]
    assert sorted(rows) == sorted(expected())


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("batch", ["1", "64"])
def test_the_header_is_of_the_first_load_batch_and_no_later_one(run, files, workers, batch):
    folder = files({f"in/{record['id']:03}.json": json.dumps(record) for record in records()})
    outcome = run(
        "in", "--to", "out.csv", "--load-batch", str(FILES - 3), "-w", workers, "-b", batch
    )
    assert outcome.code == 1
    assert "field 'phone' came after the header was written" in outcome.stderr + outcome.stdout
    with (folder / "out.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == [["id", "name"], *(row[:2] for row in expected()[:-3])]


def test_the_end_of_the_input_writes_a_batch_that_is_not_full(run, files):
    folder = files({"in/a.jsonl": '{"a": 1}\n{"b": 2}\nnonsense\n'})
    outcome = run("in", "--to", "out.csv", "--max-failures", "5", "-q")
    assert outcome.code == 0
    assert (folder / "out.csv").read_text() == "a,b\n1,\n,2\n"
