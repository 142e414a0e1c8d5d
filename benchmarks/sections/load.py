"""Arrays of people, cleaned by a Python function and loaded into SQLite."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from benchmarks.contenders import peer
from benchmarks.goals import Goal
from benchmarks.measure import CommandError
from benchmarks.people import LOADED_SQL, Loaded, loaded
from benchmarks.races import Racer, in_order, race, shell

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.measure import Outcome
    from benchmarks.setting import Setting

# The cleaning of peers/clean.py as a jq program.
JQ_CLEAN = """
    .[]
    | ((.email // "") | ltrimstr(" ") | rtrimstr(" ") | ascii_downcase) as $email
    | select($email != "")
    | (.name | split(" ") | map(select(. != "") | (.[:1] | ascii_upcase) + (.[1:] | ascii_downcase))
       | join(" ")) as $name
    | {id, name: $name, email: $email, signup, amount}
"""


def load(setting: Setting) -> None:
    """Compare with the speed of SQLite alone, with dlt, and with jq and sqlite-utils."""
    corpus = setting.people
    database = os.path.join(setting.output, "people.db")
    python, folder = sys.executable, corpus.folder
    call = f"{peer('clean.py')}:clean"
    target = ("--to", f"sqlite:///{database}", "--table", "people")

    def check(_output: bytes) -> None:
        _check(database, corpus)

    racers = [
        Racer(
            "asyncbatch run --call --to sqlite:",
            corpus,
            [setting.asyncbatch, "run", folder, "--call", call, *target],
            check,
        ),
        Racer(
            "SQLite: executemany alone",
            corpus,
            [python, "-m", "benchmarks.peers.executemany", database, folder],
            check,
            Goal(">=", 0.35, "x"),
            clock=_inner_seconds,
        ),
        Racer(
            "dlt, SQLAlchemy",
            corpus,
            [python, "-m", "benchmarks.peers.dlt_load", database, folder],
            check,
            Goal(">=", 10, "x"),
            rounds=setting.slow_rounds,
        ),
        Racer(
            "jq | sqlite-utils insert",
            corpus,
            shell(
                f"{in_order(folder)} | xargs -0 jq -c {shlex.quote(JQ_CLEAN)} | "
                + shlex.join(
                    [python, "-m", "sqlite_utils", "insert", database, "people", "-", "--nl"]
                )
            ),
            check,
            Goal(">=", 15, "x"),
            rounds=setting.slow_rounds,
            needs="jq",
        ),
    ]
    race(setting, racers)


def _inner_seconds(outcome: Outcome) -> float:
    seconds: float = json.loads(outcome.output)["seconds"]
    return seconds


def _check(database: str, corpus: Corpus) -> None:
    """Raise CommandError unless the table holds the cleaned people."""
    with closing(sqlite3.connect(database)) as connection:
        found = Loaded(*connection.execute(LOADED_SQL).fetchone())
    expected = loaded(corpus.records)
    if found != expected:
        raise CommandError(f"{database} holds {found}, not {expected}")
