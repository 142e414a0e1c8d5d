"""The check of a case: loads it in two ways, and compares all values."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture.cases import DEFAULT, DEFAULTED, KEY, Case
from tests.torture.loads import Loader
from tests.torture.targets import Output
from tests.torture.values import Table, is_held

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.postgres import PostgresServer


def check(case: Case, seed: int, server: Callable[[], PostgresServer]) -> int:
    """Run a case; return the number of values compared. Raises AssertionError.

    The seed decides about runs and batches. `server` returns the server of PostgreSQL.
    """
    target, name = case.target, f"seed {seed}, {case._replace(files=[])}"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        folders = Path(one), Path(other)
        outputs = [Output(target, f, server, is_made=case.has_default) for f in folders]
        loaders = [Loader(case, *pair) for pair in zip(outputs, folders, strict=True)]
        try:
            loaders[0].load_at_once()
            loaders[1].load_in_parts(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
        whole, parts = (output.read() for output in outputs)
    is_parquet = target == "parquet"
    contents = [
        table.content(has_order=case.has_order, is_parquet=is_parquet) for table in (whole, parts)
    ]
    assert contents[0] == contents[1], f"{name}: at once\n{contents[0]}\nin parts\n{contents[1]}"
    for table in (whole, parts):
        _compare(case, table, name)
    return 2 * len(whole.rows) * len(whole.columns)


def _compare(case: Case, table: Table, name: str) -> None:
    """Compare each value with that of its record."""
    records = case.records
    if case.target in ("jsonl", "folder"):
        assert [row[0] for row in table.rows] == records, name
        return
    if not case.is_frozen:
        assert len(table.rows) == len(records), f"{name}: {len(table.rows)} rows of {len(records)}"
    place = table.columns.index(KEY)
    there = {int(row[place]) for row in table.rows}
    if case.is_frozen:  # a row may be that of an earlier record
        accepted = [record for record in records if record[KEY] in there]
        records = accepted if case.mode == "append" else []
    for record, row in zip(records, table.rows if records else [], strict=True):
        default = {DEFAULTED: DEFAULT} if case.has_default else {}
        wanted = default | record
        for column, declared, found in zip(table.columns, table.types, row, strict=True):
            value = wanted.get(column)
            held = is_held(found, value, declared, case.target)
            assert held, f"{name}: {column} of {record} is {found!r} ({declared})"
