"""Records into one file of JSON Lines or of Parquet."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from zlib import crc32

import duckdb
import orjson

from benchmarks import filesets, goals
from benchmarks.loads import all_tables
from benchmarks.measure import CommandError
from benchmarks.races import CPUS, Agreement, Racer, in_order, peer, race, shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.corpora import Corpus
    from benchmarks.loads import Table
    from benchmarks.setting import Setting

RECORDS = 'if type == "array" then .[] else . end'


def write_lines(setting: Setting) -> None:
    """Compare with one jq process that splits the arrays."""
    corpora = {table.name: table.corpus for table in all_tables(setting)}
    corpora["orders"] = filesets.orders(setting)
    corpora |= {name: one for name, one in filesets.all_mixed(setting).items() if "real" in name}
    for name, corpus in corpora.items():
        _write_lines(setting, name, corpus)


def _write_lines(setting: Setting, name: str, corpus: Corpus) -> None:
    lines = setting.output("records.jsonl")
    agreement = Agreement("checksum")

    def check(_output: bytes) -> None:
        with open(lines, "rb") as stream:
            sums = [_checksum(orjson.loads(line)) for line in stream]
        if len(sums) != corpus.records:
            raise CommandError(f"{lines} holds {len(sums):,} records, not {corpus.records:,}")
        agreement.check(sum(sums))

    jq = f"{in_order(corpus.path)} | xargs -0 jq -c {shlex.quote(RECORDS)}"
    racers = [
        Racer(
            "asyncbatch run --to .jsonl",
            [setting.asyncbatch, "run", corpus.path, "--to", lines],
            check,
        ),
        Racer("jq -c", shell(f"{jq} > {shlex.quote(lines)}"), check, goals.LINES_OUT, needs="jq"),
        _floor("floor_lines", corpus, lines, check),
    ]
    race(setting, f"{name} into JSON Lines", corpus, racers)


def _checksum(record: object) -> int:
    """Return a number that depends on names, texts and the id, not on the notation of numbers."""
    if not isinstance(record, dict):
        return 1
    texts = [value for value in record.values() if isinstance(value, str)]
    return crc32(repr((sorted(record), record.get("id"), texts)).encode())


def write_parquet(setting: Setting) -> None:
    """Compare with DuckDB's COPY from the same files."""
    for table in all_tables(setting):
        _write_parquet(setting, table)


def _write_parquet(setting: Setting, table: Table) -> None:
    path, folder = setting.output("records.parquet"), table.corpus.path

    def check(_output: bytes) -> None:
        query = f"select count(*), sum({table.summed})::bigint from '{path}'"
        found = duckdb.connect().execute(query).fetchone()
        if found != (table.corpus.records, table.total):
            raise CommandError(f"{path} holds {found}")

    racers = [
        Racer(
            "asyncbatch run --to .parquet", [setting.asyncbatch, "run", folder, "--to", path], check
        ),
        Racer("DuckDB, COPY TO", peer("duckdb_parquet", folder, path), check, goals.PARQUET_OUT),
        _floor("floor_parquet", table.corpus, path, check),
    ]
    race(setting, f"{table.name} into Parquet", table.corpus, racers)


def _floor(name: str, corpus: Corpus, target: str, check: Callable[[bytes], None]) -> Racer:
    return Racer(f"floor, {CPUS} processes", peer(name, str(CPUS), corpus.path, target), check)
