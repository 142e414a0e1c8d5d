"""The targets of cases: how the command names them, and how other programs read them."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from tests.torture.cases import DATABASES, DEFAULT, DEFAULTED, KEY
from tests.torture.values import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.postgres import PostgresServer

_NUMBERS = count()


class Output:
    """The output of one way to load a case, in a folder of its own."""

    def __init__(
        self, target: str, folder: Path, server: Callable[[], PostgresServer], *, is_made: bool
    ) -> None:
        self.target, self._server = target, server
        # All cases share one database.
        self.table = f"t{next(_NUMBERS)}" if target == "postgres" else "t"
        self.to = self._address(folder)
        self._path = folder / f"out.{target}"
        if is_made:
            self._execute(
                f"CREATE TABLE {self.table} ({KEY} BIGINT, {DEFAULTED} BIGINT DEFAULT {DEFAULT})"
            )

    def options(self) -> list[str]:
        """Return the options that name the target."""
        return ["--to", self.to, *(["--table", self.table] if self.target in DATABASES else [])]

    def read(self) -> Table:
        """Return the content."""
        match self.target:
            case "jsonl":
                return _records([self._path])
            case "folder":
                return _records([path for path in self._path.rglob("*") if path.is_file()])
            case "csv":
                with self._path.open(newline="", encoding="utf-8") as stream:
                    header, *cells = csv.reader(stream)
                place = header.index(KEY)
                cells.sort(key=lambda row: int(row[place]))
                return Table(header, [""] * len(header), [list(row) for row in cells])
            case "parquet":
                columns = self._execute(f"DESCRIBE SELECT * FROM '{self._path}'")
                rows = self._execute(f"SELECT * FROM '{self._path}' ORDER BY {KEY}")
            case _:
                columns = self._execute(_COLUMNS[self.target].format(self.table))
                rows = self._execute(f"SELECT * FROM {self.table} ORDER BY {KEY}")
        return Table([c[0] for c in columns], [c[1] for c in columns], [list(row) for row in rows])

    def _address(self, folder: Path) -> str:
        match self.target:
            case "postgres":
                return self._server().url()
            case "sqlite" | "duckdb":
                return f"{self.target}:///{folder}/out.{self.target}"
        return f"{folder}/out.{self.target}{'/' if self.target == 'folder' else ''}"

    def _execute(self, query: str) -> list[tuple[Any, ...]]:
        if self.target == "postgres":
            return self._server().execute(query)
        if self.target == "sqlite":
            with closing(sqlite3.connect(self._path)) as connection:
                return connection.execute(query).fetchall()
        file = str(self._path) if self.target == "duckdb" else ":memory:"
        with closing(duckdb.connect(file)) as connection:
            return connection.execute(query).fetchall()


_COLUMNS = {
    "sqlite": "SELECT name, type FROM pragma_table_info('{}')",
    "duckdb": "DESCRIBE {}",
    "postgres": (
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    ),
}


def _records(paths: list[Path]) -> Table:
    """Return the records of JSON files as a table with one column."""
    records: list[dict[str, Any]] = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        records += (
            json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
        )
    records.sort(key=lambda record: int(record[KEY]))
    return Table(["record"], [""], [[record] for record in records])
