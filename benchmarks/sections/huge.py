"""Files too large for memory: JSON Lines of 2 GB, an array of 1 GB."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from benchmarks.contenders import peer
from benchmarks.goals import Goal
from benchmarks.measure import CommandError, measure
from benchmarks.races import Racer, race

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

LINES_GOAL, ARRAY_GOAL, IJSON_GOAL = Goal(">=", 3, "x"), Goal(">=", 1, "x"), Goal(">=", 2.5, "x")
MEMORY_SHARE_GOAL = Goal("<=", 0.333, " of DuckDB's")


def count_lines(setting: Setting) -> None:
    """Count the records of a file of JSON Lines, and compare with DuckDB."""
    corpus = setting.huge_lines
    ours, table = _ours(setting, corpus), _duckdb(corpus, "read_json", LINES_GOAL)
    race(setting, [ours, table, _duckdb(corpus, "read_json_objects")])
    _compare_memory(ours.command, table.command, MEMORY_SHARE_GOAL)


def count_elements(setting: Setting) -> None:
    """Count the elements of one array, and compare with DuckDB and ijson."""
    corpus = setting.huge_array
    ours, table = _ours(setting, corpus), _duckdb(corpus, "read_json", ARRAY_GOAL)
    ijson = Racer(
        "ijson (yajl2_c)",
        corpus,
        [sys.executable, peer("ijson_count.py"), corpus.folder],
        _check(corpus, int),
        IJSON_GOAL,
        rounds=1,
    )
    race(setting, [ours, table, _duckdb(corpus, "read_json_objects"), ijson])
    _compare_memory(ours.command, table.command, None)


def _ours(setting: Setting, corpus: Corpus) -> Racer:
    command = [setting.asyncbatch, "run", corpus.folder]
    return Racer("asyncbatch run", corpus, command, _check(corpus, _summary))


def _duckdb(corpus: Corpus, reader: str, goal: Goal | None = None) -> Racer:
    command = [sys.executable, peer("duckdb_huge.py"), reader, corpus.folder]
    return Racer(f"DuckDB, {reader}", corpus, command, _check(corpus, int), goal)


def _check(corpus: Corpus, total: Callable[[bytes], int]) -> Callable[[bytes], None]:
    def check(output: bytes) -> None:
        if total(output) != corpus.records:
            raise CommandError(f"{total(output):,} records, not {corpus.records:,}")

    return check


def _summary(output: bytes) -> int:
    found = re.search(rb"^ *records +([\d,]+) read", output, re.MULTILINE)
    return int(found[1].replace(b",", b"")) if found else -1


def _compare_memory(ours: Sequence[str], theirs: Sequence[str], goal: Goal | None) -> None:
    """Print both memory peaks, each of all processes together."""
    here, there = (measure(command, memory=True).peak_bytes for command in (ours, theirs))
    cells = "  ".join(goal.cells(here / there)) if goal else ""
    print(
        f"memory: asyncbatch {here / 1e6:,.0f} MB, DuckDB {there / 1e6:,.0f} MB: "
        f"{here / there:.2f} of DuckDB's  {cells}".rstrip()
        + "\n"
    )
