"""Records into a table of SQLite: people cleaned by a Python function, others as they are."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from benchmarks import goals, peers
from benchmarks.loads import all_tables
from benchmarks.measure import CommandError
from benchmarks.people import LOADED_SQL, Loaded, loaded
from benchmarks.races import Racer, in_order, inner_seconds, peer, race, shell

if TYPE_CHECKING:
    from benchmarks.loads import Table
    from benchmarks.setting import Setting

CLEAN = os.path.join(os.path.dirname(peers.__file__), "clean.py")
# The same cleaning as a jq program.
JQ_CLEAN = """
    .[]
    | ((.email // "") | ltrimstr(" ") | rtrimstr(" ") | ascii_downcase) as $email
    | select($email != "")
    | (.name | split(" ") | map(select(. != "") | (.[:1] | ascii_upcase) + (.[1:] | ascii_downcase))
       | join(" ")) as $name
    | {id, name: $name, email: $email, signup, amount}
"""


def load(setting: Setting) -> None:
    """Compare with the speed of SQLite alone, and people also with other programs."""
    for table in all_tables(setting):
        _load(setting, table)


def _load(setting: Setting, table: Table) -> None:
    database, folder = setting.output("records.db"), table.corpus.path
    people = table.name == "people"

    def check(_output: bytes) -> None:
        _check(database, table)

    target = ("--to", f"sqlite:///{database}", "--table", "records")
    call = ("--call", f"{CLEAN}:clean") if people else ()
    bare = peer("executemany", database, table.columns_json, folder, "cleaned" if people else "")
    racers = [
        Racer(
            "asyncbatch run --to sqlite:",
            [setting.asyncbatch, "run", folder, *call, *target],
            check,
        ),
        Racer("floor: executemany", bare, check, goals.SQLITE_FLOOR, clock=inner_seconds),
    ]
    if people:
        slow = setting.slow_rounds
        dlt = peer("dlt_load", f"sqlite:///{database}", f"{database}.dlt", folder)
        jq = f"{in_order(folder)} | xargs -0 jq -c {shlex.quote(JQ_CLEAN)}"
        insert = shlex.join(
            [sys.executable, "-m", "sqlite_utils", "insert", database, "records", "-", "--nl"]
        )
        racers += [
            Racer("dlt, SQLAlchemy", dlt, check, goals.SQLITE_DLT, rounds=slow, needs="dlt"),
            Racer(
                "jq | sqlite-utils insert",
                shell(f"{jq} | {insert}"),
                check,
                goals.SQLITE_UTILS,
                rounds=slow,
                needs="jq",
            ),
        ]
    race(setting, f"{table.name} into SQLite", table.corpus, racers)


def _check(database: str, table: Table) -> None:
    """Raise CommandError unless the table holds the records, and cleaned people."""
    with closing(sqlite3.connect(database)) as connection:
        if table.name == "people":
            expected: tuple[int, ...] = loaded(table.corpus.records)
            found = Loaded(*connection.execute(LOADED_SQL).fetchone())
        else:
            expected = (table.corpus.records, table.total)
            query = f"select count(*), sum({table.summed}) from records"
            found = connection.execute(query).fetchone()
    if found != expected:
        raise CommandError(f"{database} holds {found}, not {expected}")
