"""Random cases: records in files, and the way in which they are loaded."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

TARGETS = ("csv", "parquet", "sqlite", "duckdb", "postgres", "jsonl", "folder")
DATABASES = ("sqlite", "duckdb", "postgres")
# The number of a record, which is the key of an upsert.
KEY = "_"
# A field with a column that a table has before it is loaded, and the default of this column.
DEFAULTED, DEFAULT = "made", 42

_VALUES: list[Any] = [
    None, None, True, False, 0, 1, 2, -5, 1.0, 2.5, -0.0, 1e22, 1.5e-7, 1e-5, 1e15, 1e16, 1e308,
    5e-324, 123456789.12345678, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**30, "a", "1",
    "true", "", "1.0", "007", "null", "é\n", "2026-01-01T12:00:00Z", "2026-01-01T12:00:00.25+05:30",
    "2026-02-30T12:00:00Z", "2026-01-01", [1, None], {"a": 1.0}, {}, [], [True, {"b": "x"}],
    [1, 2.5], [2**53 + 1], {"a": None}, {"a": 1, "b": [1]}, {"A": "x"},
    [{"a": {"b": "x"}}, {"a": {}}],
    {"long": -0.0, "b": [1e22, 1.5e-7], "a": {"é": "\u007f\n\\", '"': 2**64}},
]  # fmt: skip
_NAMES = ("a", "b", "c", "d d", "é")


class Case(NamedTuple):
    """Records in files, and the way in which they are loaded."""

    target: str
    files: list[list[dict[str, Any]]]
    mode: str = "append"
    is_frozen: bool = False  # the table is that of the first file, by --schema-contract freeze
    has_default: bool = False  # the table is there before, with a column that has a default
    is_etl: bool = False  # pages of an API
    is_slow: bool = False  # a function sleeps in some records
    is_unordered: bool = False
    is_killed: bool = False

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records that the target must hold, by their numbers."""
        records = [record for file in self.files for record in file]
        if self.mode == "upsert":
            records = list({record[KEY]: record for record in records}.values())
        return sorted(records, key=lambda record: record[KEY])

    @property
    def columns(self) -> list[str]:
        """The names of all fields."""
        return list(
            dict.fromkeys(name for file in self.files for record in file for name in record)
        )

    @property
    def has_order(self) -> bool:
        """Whether records come in one order only."""
        return not (self.is_etl or self.is_unordered)


def make_case(seed: int, target: str, most_files: int = 40) -> Case:
    """Return the case of a seed, with at most `most_files` files."""
    rnd = random.Random(f"{seed} {target}")

    def happens(share: float) -> bool:
        return rnd.random() < share

    is_table = target in DATABASES
    is_etl = target != "folder" and happens(0.3)
    is_unordered = target != "folder" and happens(0.3)
    mode = rnd.choice(["append", "upsert", "replace"]) if is_table else "append"
    has_default = is_table and mode != "replace" and happens(0.4)
    # With several values of one key, the order decides.
    repeats = mode == "upsert" and not (is_etl or is_unordered or has_default)
    pools = {name: rnd.sample(_VALUES, rnd.randint(1, 4)) for name in _NAMES}
    if has_default:
        pools[DEFAULTED] = [None, 1, 2]
    count = rnd.randint(4, 40)
    records = [
        {KEY: rnd.randrange(count) if repeats else number}
        | {name: rnd.choice(pool) for name, pool in pools.items() if happens(0.8)}
        for number in range(count)
    ]
    files: list[list[dict[str, Any]]] = [[]]
    for record in records:
        if files[-1] and happens(0.2) and len(files) < most_files:
            files.append([])
        files[-1].append(record)
    return Case(
        target, files, mode,
        is_frozen=is_table and mode != "replace" and len(files) > 1 and happens(0.3),
        has_default=has_default, is_etl=is_etl, is_slow=happens(0.5), is_unordered=is_unordered,
        is_killed=happens(0.4),
    )  # fmt: skip
