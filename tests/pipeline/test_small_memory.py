"""Every target within little memory: an ordered run over files of many rows comes to its end."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import subprocess

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.commands import COMMAND, PATIENCE, environment

FILES = 90
ROW = "x" * 200_000  # the rows of a batch are more than may be held
CALL = """
import os
import time


def slow_head(record):
    # The first file is the last one of its batch to be done: later batches have to wait for it.
    if record["id"] == 0:
        time.sleep(0.5)
    return record
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of files of one large record each."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "call.py").write_text(CALL)
    (folder / "in").mkdir()
    for number in range(FILES):
        (folder / "in" / f"{number:03}.json").write_text(json.dumps({"id": number, "text": ROW}))
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def csv_rows(path):
    csv.field_size_limit(10_000_000)
    with path.open(newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return [
            {"id": int(row["id"]), "text": row["text"]}
            for row in csv.DictReader(file, delimiter=delimiter)
        ]


def sqlite_rows(path):
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT id, text FROM t ORDER BY rowid").fetchall()
    finally:
        connection.close()
    return [{"id": one, "text": text} for one, text in found]


def duckdb_rows(path):
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT id, text FROM t ORDER BY rowid").fetchall()
    return [{"id": one, "text": text} for one, text in found]


def mirrored(path):
    return [json.loads(one.read_text()) for one in sorted(path.rglob("*.json"))]


TARGETS = {
    "out.jsonl": ("out.jsonl", lines),
    "out.csv": ("out.csv", csv_rows),
    "out.tsv": ("out.tsv", csv_rows),
    "out.parquet": ("out.parquet", lambda path: pq.read_table(path).to_pylist()),
    "sqlite": ("sqlite:///out.db", sqlite_rows),
    "duckdb": ("duckdb:///out.duckdb", duckdb_rows),
    "folder": ("mirror/", mirrored),
}


def least_memory(arguments, cwd):
    """Return a `--max-memory` hardly above the need of a job, by the message of its refusal."""
    refused = subprocess.run(
        [*COMMAND, *arguments, "--max-memory", "1M"],
        check=False, capture_output=True, text=True, cwd=cwd, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    megabytes = float(refused.stderr.split("at least ")[1].split()[0])
    return f"{math.ceil(megabytes * 1e6 / 1024**2) + 1}M"


@pytest.mark.parametrize("target", TARGETS)
def test_a_slow_head_of_the_order_holds_up_no_target_for_ever(target, folder, tmp_path):
    to, read = TARGETS[target]
    arguments = [
        "run", str(folder / "in"), "--to", to, "-q",
        *(("--table", "t") if "://" in to else ()),
        "--call", f"{folder / 'call.py'}:slow_head",
    ]  # fmt: skip
    finished = subprocess.run(
        [*COMMAND, *arguments, "--max-memory", least_memory(arguments, tmp_path)],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    name = to.removeprefix("sqlite:///").removeprefix("duckdb:///")
    rows = read(tmp_path / name)
    assert [row["id"] for row in rows] == list(range(FILES))
    assert {row["text"] for row in rows} == {ROW}


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("engine", ["plain", "async"])
def test_standard_output_gets_all_rows_in_order_within_little_memory(
    engine, workers, folder, tmp_path
):
    (tmp_path / "call.py").write_text("async def same(record):\n    return record\n")
    arguments = ["run", str(folder / "in"), "--to", "-", "-q", "-w", workers]
    if engine == "async":
        arguments += ["--call", "call.py:same"]
    finished = subprocess.run(
        [*COMMAND, *arguments, "--max-memory", least_memory(arguments, tmp_path)],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(FILES))
    assert {row["text"] for row in rows} == {ROW}


def test_a_pipeline_of_several_sources_ends_within_little_memory(folder, tmp_path):
    source = '[[source]]\ntype = "files"\npaths = ["{}"]\n'
    (tmp_path / "again").symlink_to(folder / "in")
    (tmp_path / "two.toml").write_text(
        'name = "two"\n'
        + "".join(source.format(path) for path in (folder / "in", "again"))
        + '[sink]\nto = "sqlite:///out.db"\ntable = "t"\n'
    )
    arguments = ["etl", "two.toml", "-q"]
    finished = subprocess.run(
        [*COMMAND, *arguments, "--max-memory", least_memory(arguments, tmp_path)],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    assert sorted(row["id"] for row in sqlite_rows(tmp_path / "out.db")) == sorted(
        [*range(FILES), *range(FILES)]
    )
