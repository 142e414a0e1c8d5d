"""Columns about the origin of each record, and profiles: what they cost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.loads import wide_table
from benchmarks.measure import CommandError
from benchmarks.races import Racer, expect, race, read_total

if TYPE_CHECKING:
    from benchmarks.setting import Setting


def add_origin(setting: Setting) -> None:
    """Compare a run with `--with-source` with the same run without it."""
    table = wide_table(setting, lines=True)
    folder, records = table.corpus.path, table.corpus.records
    database, lines = setting.output("records.db"), setting.output("records.jsonl")

    def in_database(_output: bytes) -> None:
        with closing(sqlite3.connect(database)) as connection:
            [found] = connection.execute("select count(*) from records").fetchone()
        _check(found, records)

    def in_lines(_output: bytes) -> None:
        with open(lines, "rb") as stream:
            _check(sum(1 for _ in stream), records)

    targets = {
        "SQLite": (["--to", f"sqlite:///{database}", "--table", "records"], in_database),
        "JSON Lines": (["--to", lines], in_lines),
    }
    for name, (target, check) in targets.items():
        command = [setting.asyncbatch, "run", folder, *target]
        racers = [
            Racer("asyncbatch run --with-source", [*command, "--with-source"], check),
            Racer("asyncbatch run", command, check, goals.ORIGIN),
        ]
        race(setting, f"{table.name} into {name}, with their origin", table.corpus, racers)


def profile(setting: Setting) -> None:
    """Compare a profile with the run that only counts records."""
    for name, corpus in filesets.all_mixed(setting).items():
        racers = [
            Racer(
                "asyncbatch profile",
                [setting.asyncbatch, "profile", corpus.path, "-o", "json"],
                expect(corpus.records, lambda output: int(json.loads(output)["records"]["read"])),
            ),
            Racer(
                "asyncbatch run",
                [setting.asyncbatch, "run", corpus.path],
                expect(corpus.records, read_total),
                goals.PROFILE,
            ),
        ]
        race(setting, f"{name}, profiled", corpus, racers)


def _check(found: int, records: int) -> None:
    if found != records:
        raise CommandError(f"the target holds {found:,} records, not {records:,}")
