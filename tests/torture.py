"""Runs over random records, which must leave the same values however the records come.

`make torture` runs many cases; the suite runs a few. A case is a list of records. It is loaded once
by one run with one batch, and once by several runs that resume, with small batches, over several
files, with slow records. Both targets must hold the same columns and values, and each value must be
that of its record. DuckDB, SQLite, PostgreSQL and Python's csv module read the targets.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from tests.commands import COMMAND, PATIENCE, environment

TARGETS = ("csv", "parquet", "sqlite", "duckdb", "jsonl")
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -5, 1.0, 2.5, -0.0, 1e22, 1.5e-7, 1e-5, 1e15, 2**53, 2**53 + 1,
    2**63 - 1, 2**64, "a", "1", "true", "", "1.0", "007", "null", "é\n", [1, None], {"a": 1.0}, {},
    [True, {"b": "x"}], [1, 2.5], [2**53 + 1], [], {"a": None}, {"a": 1, "b": [1]}, {"A": "x"},
    [{"a": {"b": "x"}}, {"a": {}}],
]  # fmt: skip
NAMES = ("a", "b", "c", "d d", "é")
SLOW = """
import time

def slow(record):
    if record["_"] % 5 == 3:
        time.sleep(0.05)
    return record
"""


class Case(NamedTuple):
    """Records, divided into files."""

    files: list[list[dict[str, Any]]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records in input order."""
        return [record for file in self.files for record in file]


def make_case(seed: int) -> Case:
    """Return the case of a seed."""
    rnd = random.Random(seed)
    pools = {name: rnd.sample(VALUES, rnd.randint(1, 4)) for name in NAMES}
    records = [
        {"_": number} | {name: rnd.choice(pools[name]) for name in NAMES if rnd.random() < 0.8}
        for number in range(rnd.randint(4, 40))
    ]
    files: list[list[dict[str, Any]]] = [[]]
    for record in records:
        if files[-1] and rnd.random() < 0.2:
            files.append([])
        files[-1].append(record)
    return Case(files)


class Table(NamedTuple):
    """The content of a target."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]

    def without_empty(self) -> Table:
        """Return the table without columns that have no values.

        A field without any value in one of several runs is a column of texts, or none.
        """
        kept = [
            place
            for place in range(len(self.columns))
            if any(row[place] not in (None, "") for row in self.rows)
        ]
        return Table(
            [self.columns[place] for place in kept],
            [self.types[place] for place in kept],
            [[row[place] for place in kept] for row in self.rows],
        )

    def without_order(self) -> Table:
        """Return the table with JSON texts in one form.

        A text made of the STRUCT of an earlier run has its order of keys, and 1.0 for 1.
        """
        return Table(self.columns, self.types, [list(map(_one_form, row)) for row in self.rows])


def _one_form(cell: Any) -> Any:
    if not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    return json.dumps(json.loads(cell, parse_float=_number), sort_keys=True)


def _number(text: str) -> float:
    return int(float(text)) if float(text).is_integer() else float(text)


def command(folder: Path, *arguments: str) -> None:
    """Run the command, which must succeed."""
    finished = subprocess.run(
        [*COMMAND, *arguments, "-q"],
        check=False, capture_output=True, text=True, cwd=folder, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert finished.returncode == 0, f"{arguments}: {finished.stdout}{finished.stderr}"


def load_at_once(case: Case, target: str, folder: Path) -> Table:
    """Load a case by one run with one batch."""
    lines = "".join(json.dumps(record) + "\n" for record in case.records)
    (folder / "all.jsonl").write_text(lines)
    command(folder, "run", "all.jsonl", *options(target, "once"), "--workers", "0")
    return read(target, folder, "once")


def load_in_parts(case: Case, target: str, folder: Path, seed: int) -> Table:
    """Load a case by several runs that resume."""
    rnd = random.Random(seed)
    (folder / "in").mkdir()
    (folder / "slow.py").write_text(SLOW)
    columns = dict.fromkeys(name for record in case.records for name in record)
    more = ["--columns", ",".join(columns)] if target == "csv" else []
    if rnd.random() < 0.5 and target != "csv":  # where a function's result has other texts
        more += ["--call", "slow.py:slow"]
    for number, records in enumerate(case.files):
        path = folder / "in" / f"{number:03}.{rnd.choice(['json', 'jsonl'])}"
        lines = list(map(json.dumps, records))
        is_array = path.suffix == ".json"
        path.write_text(f"[{','.join(lines)}]" if is_array else "".join(f"{x}\n" for x in lines))
        if number == len(case.files) - 1 or rnd.random() < 0.3:
            command(
                folder, "run", "in", *options(target, "parts"), "--resume", *more,
                "--load-batch", str(rnd.randint(1, 5)), "-b", str(rnd.randint(1, 3)),
                "--workers", str(rnd.choice([0, 2])),
            )  # fmt: skip
    return read(target, folder, "parts")


def options(target: str, name: str) -> list[str]:
    """Return the options that name a target."""
    if target in ("sqlite", "duckdb"):
        return ["--to", f"{target}:///{name}.{target}", "--table", "t"]
    return ["--to", f"{name}.{target}"]


def read(target: str, folder: Path, name: str) -> Table:
    """Return the content of a target, in the order of the records."""
    path = folder / f"{name}.{target}"
    match target:
        case "jsonl":
            found = [json.loads(line) for line in path.read_text().splitlines()]
            return Table(["record"], [""], [[record] for record in found])
        case "csv":
            with path.open(newline="", encoding="utf-8") as stream:
                header, *cells = csv.reader(stream)
            return Table(header, [""] * len(header), [list(row) for row in cells])
        case "sqlite":
            with closing(sqlite3.connect(path)) as connection:
                query = "SELECT name, type FROM pragma_table_info('t')"
                columns = connection.execute(query).fetchall()
                rows = connection.execute("SELECT * FROM t ORDER BY _").fetchall()
        case _:
            source = f"'{path}'" if target == "parquet" else "t"
            file = ":memory:" if target == "parquet" else str(path)
            with closing(duckdb.connect(file)) as connection:
                columns = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
                rows = connection.execute(f"SELECT * FROM {source} ORDER BY _").fetchall()
    return Table([c[0] for c in columns], [c[1] for c in columns], [list(row) for row in rows])


def is_nested_held(found: Any, value: Any) -> bool:
    """Whether a STRUCT or LIST, or the JSON text of an array or object, holds a value.

    A key that is missing is null in a STRUCT.
    """
    if isinstance(found, dict) and isinstance(value, dict):
        return value.keys() <= found.keys() and all(
            is_nested_held(part, value.get(name)) for name, part in found.items()
        )
    if isinstance(found, list) and isinstance(value, list):
        return len(found) == len(value) and all(map(is_nested_held, found, value))
    if isinstance(found, str) and isinstance(value, (dict, list)):
        return _same_json(found, json.dumps(value))
    return bool(found == value and isinstance(found, bool) == isinstance(value, bool))


def is_held(found: Any, value: Any, declared: str, target: str) -> bool:
    """Whether a column of a type holds a value of a record."""
    if target == "csv":
        if value is None or isinstance(value, str):
            return bool(found == (value or ""))
        return _same_json(found, json.dumps(value))
    if value is None or isinstance(value, str):
        return bool(found == value)
    if declared == "BOOLEAN" and target == "sqlite" and found in (0, 1):
        found = bool(found)
    if isinstance(found, (dict, list)):
        return is_nested_held(found, value)
    if isinstance(found, str):
        return _same_json(found, json.dumps(value))
    return bool(found == value and isinstance(found, bool) == isinstance(value, bool))


def _same_json(one: str, other: str) -> bool:
    try:
        left, right = json.loads(one), json.loads(other)
    except ValueError:
        return False
    return bool(left == right and isinstance(left, bool) == isinstance(right, bool))


def check(seed: int, target: str) -> int:
    """Run a case; return the number of values compared."""
    case = make_case(seed)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = load_at_once(case, target, Path(one))
        parts = load_in_parts(case, target, Path(other), seed)
    if target == "jsonl":
        assert [row[0] for row in whole.rows] == case.records, f"seed {seed}, {target}"
    else:
        assert len(whole.rows) == len(case.records)
        for record, row in zip(case.records, whole.rows, strict=True):
            for name, declared, found in zip(whole.columns, whole.types, row, strict=True):
                held = is_held(found, record.get(name), declared, target)
                assert held, f"seed {seed}, {target}: {name} of {record} is {found!r} ({declared})"
    if target == "parquet":
        whole, parts = whole.without_order(), parts.without_order()
    difference = f"seed {seed}, {target}: {whole} is not {parts}"
    assert repr(whole.without_empty()) == repr(parts.without_empty()), difference
    return len(whole.rows) * len(whole.columns)


def main() -> int:
    """Run cases from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first case")
    parser.add_argument("--target", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    values = differences = 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        for target in arguments.target or TARGETS:
            try:
                values += check(seed, target)
            except AssertionError as error:
                differences += 1
                sys.stderr.write(f"{error}\n")
    sys.stdout.write(
        f"{arguments.cases} cases, {values:,} values compared, {differences} differences\n"
    )
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
