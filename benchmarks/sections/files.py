"""Each file's record count: asyncbatch, its peers, and a floor that only reads and parses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.races import CPUS, Racer, expect, peer, race, read_total, under_xargs

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.goals import Row
    from benchmarks.setting import Setting

LENGTH = 'if type == "array" then length else 1 end'


def compare_mixed(setting: Setting) -> None:
    """Compare on files of many sizes."""
    for shape, corpus in filesets.all_mixed(setting).items():
        rows = (goals.MIXED_DUCKDB, goals.MIXED_JQ, goals.MIXED_TEXTBOOK, goals.MIXED_FLOOR)
        _compare(setting, shape, corpus, rows)


def compare_tiny(setting: Setting) -> None:
    """Compare on tiny files."""
    for shape, corpus in filesets.all_tiny(setting).items():
        rows = (goals.TINY_DUCKDB, goals.TINY_JQ, goals.TINY_TEXTBOOK, None)
        _compare(setting, shape, corpus, rows)


def _compare(setting: Setting, shape: str, corpus: Corpus, rows: tuple[Row | None, ...]) -> None:
    """Compare equal work: those with a sum, then those with a result for each file."""
    folder, records = corpus.path, corpus.records
    run = [setting.asyncbatch, "run", folder]
    total = expect(records)
    duckdb, jq, textbook, floor = rows
    slow = setting.slow_rounds
    race(
        setting,
        f"{shape}, the sum",
        corpus,
        memory=goals.MEMORY_FILES,
        racers=[
            Racer("asyncbatch run", run, expect(records, read_total)),
            Racer("DuckDB, only the sum", peer("duckdb_counts", "sum", folder), total, duckdb),
            Racer("aiofiles + json.loads", peer("textbook", folder), total, textbook, rounds=slow),
            Racer(f"floor, {CPUS} processes", peer("floor", str(CPUS), folder), total, floor),
        ],
    )
    race(
        setting,
        f"{shape}, each file",
        corpus,
        memory=goals.MEMORY_FILES,
        racers=[
            Racer("asyncbatch run -o jsonl", [*run, "-o", "jsonl"], expect(records, _events)),
            Racer(
                "DuckDB, a row a file",
                peer("duckdb_counts", "rows", folder),
                expect(records, _csv),
                duckdb,
            ),
            Racer(
                f"jq, xargs -P {CPUS}",
                under_xargs(folder, ["jq", LENGTH]),
                expect(records, _numbers),
                jq,
                needs="jq",
            ),
        ],
    )


def _events(output: bytes) -> int:
    events = map(json.loads, output.splitlines())
    return sum(event["records"] for event in events if event["event"] == "file")


def _csv(output: bytes) -> int:
    return sum(int(line.rpartition(b",")[2]) for line in output.splitlines())


def _numbers(output: bytes) -> int:
    return sum(map(int, output.split()))
