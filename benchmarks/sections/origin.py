"""Columns about the origin of each record, and profiles: what they cost."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.loads import wide_table
from benchmarks.measure import CommandError
from benchmarks.races import CPUS, Agreement, Racer, expect, peer, race, read_total

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

# genson gets one of this number of files.
PART = 10
# One of this number of files is validated against an inferred schema.
SOME_FILES = 10


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
    """Compare a profile with the run that only counts, and an inferred schema with that of genson.

    The floors decode each file, and one of them visits each value.
    """
    parts = filesets.all_mixed(setting, PART)
    for name, corpus in filesets.all_mixed(setting).items():
        values = Agreement("values")
        decode = peer("floor_profile", str(CPUS), corpus.path)
        floors = [
            Racer(f"floor: decode, {CPUS} processes", decode, expect(corpus.records)),
            Racer(
                f"decode, visit each value, {CPUS} processes",
                [*decode, "--visit"],
                partial(_check_number, values),
            ),
        ]
        profiled = Racer(
            "asyncbatch profile",
            [setting.asyncbatch, "profile", corpus.path, "-o", "json"],
            expect(corpus.records, lambda output: int(json.loads(output)["records"]["read"])),
        )
        counted = Racer(
            "asyncbatch run",
            [setting.asyncbatch, "run", corpus.path],
            expect(corpus.records, read_total),
            goals.PROFILE,
        )
        race(setting, f"{name}, profiled", corpus, [profiled, counted, *floors])
        inferred = Racer(
            "asyncbatch schema infer",
            [setting.asyncbatch, "schema", "infer", corpus.path, "--unit", "file", "--quiet"],
            partial(_check_schema, corpus),
        )
        part = parts[name]
        genson = Racer(
            "genson",
            [sys.executable, "-m", "genson", *part.all_files()],
            partial(_check_schema, part),
            goals.INFER,
            rounds=setting.slow_rounds,
            needs="genson",
            part=part,
        )
        race(setting, f"{name}, schema inferred", corpus, [inferred, genson, *floors])


def _check_number(agreement: Agreement, output: bytes) -> None:
    agreement.check(int(output))


def _check_schema(corpus: Corpus, output: bytes) -> None:
    """Raise CommandError if the schema refuses a document, or accepts a value of another type."""
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(json.loads(output))
    for path in corpus.all_files()[::SOME_FILES]:
        with open(path, "rb") as stream:
            if not validator.is_valid(json.load(stream)):
                raise CommandError(f"the schema refuses {path}")
    if validator.is_valid(None):
        raise CommandError("the schema accepts null, which no file is")


def _check(found: int, records: int) -> None:
    if found != records:
        raise CommandError(f"the target holds {found:,} records, not {records:,}")
