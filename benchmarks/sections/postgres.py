"""People in JSON Lines, loaded into a table of PostgreSQL with a primary key."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from benchmarks.goals import Goal
from benchmarks.measure import CommandError
from benchmarks.postgres_server import fetch, postgres_server
from benchmarks.races import Racer, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.corpora import Corpus
    from benchmarks.measure import Outcome
    from benchmarks.setting import Setting

CLEAR = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CHECKPOINT"
APPEND_GOAL, UPSERT_GOAL, DLT_GOAL = (
    Goal(">=", 0.5, "x"),
    Goal(">=", 0.35, "x"),
    Goal(">=", 10, "x"),
)


def load_postgres(setting: Setting) -> None:
    """Append, then upsert new and known keys; compare with a bare COPY and with dlt."""
    corpus = setting.people_lines
    with postgres_server() as address:

        def fresh(_output: bytes) -> None:
            _check(address, corpus)
            fetch(address, "SELECT 1", CLEAR)

        def kept(_output: bytes) -> None:
            _check(address, corpus)

        bare = [sys.executable, "-m", "benchmarks.peers.copy_records", address, corpus.folder]
        beside = os.path.join(setting.output, "dlt")
        dlt = [sys.executable, "-m", "benchmarks.peers.dlt_postgres", address, beside]
        copy = ("PostgreSQL: asyncpg's COPY alone", corpus, bare, fresh)
        race(
            setting,
            [
                _ours("append", setting, address, fresh),
                Racer(*copy, APPEND_GOAL, clock=_inner_seconds),
                Racer(
                    *("dlt, PostgreSQL", corpus, [*dlt, corpus.folder], fresh, DLT_GOAL),
                    rounds=setting.slow_rounds,
                ),
            ],
        )
        race(
            setting,
            [
                _ours("upsert", setting, address, fresh),
                Racer(*copy, UPSERT_GOAL, clock=_inner_seconds),
            ],
        )
        print("the same, where all the rows are there already:")
        race(setting, [_ours("upsert", setting, address, kept)])


def _ours(mode: str, setting: Setting, address: str, check: Callable[[bytes], None]) -> Racer:
    target = ("--to", address, "--table", "people", "--key", "id", "--mode", mode)
    corpus = setting.people_lines
    command = [setting.asyncbatch, "run", corpus.folder, *target]
    return Racer(f"asyncbatch run --mode {mode}", corpus, command, check)


def _inner_seconds(outcome: Outcome) -> float:
    seconds: float = json.loads(outcome.output)["seconds"]
    return seconds


def _check(address: str, corpus: Corpus) -> None:
    """Raise CommandError unless the table holds the people."""
    query = "SELECT count(*), sum(id)::bigint, count(DISTINCT signup || name) > 1 FROM people"
    found, count = fetch(address, query), corpus.records
    if found != (count, count * (count + 1) // 2, True):
        raise CommandError(f"{address} holds {found}, not {count:,} people")
