"""The targets of closed windows: lines, CSV and table rows."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import convert

from asyncbatch.core.retry import Retrier, Retries
from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import encode, encode_lines
from asyncbatch.sinks.columns.block import EXACT, ColumnBlock, Kind, make_block
from asyncbatch.sinks.databases.sql import fold
from asyncbatch.sinks.target import Target, parse_location
from asyncbatch.sinks.text_files import csv_lines
from asyncbatch.storage.append import AppendFile, AppendPosition
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.windows.events import Window, WindowSchema


class WindowTarget(Protocol):
    """A target of closed windows. It is used by one thread at a time.

    Call `open` first, then `rows` and `load` repeatedly, then `finish`.
    """

    name: str  # for messages
    wait_seconds: float  # how long to wait for more rows before they are loaded together

    def check_resumable(self) -> None:
        """Raise UsageError if a killed process could lose loaded windows."""
        ...

    def open(
        self, position: Any = None, removed: Sequence[Window] = (), *, has_windows: bool = False
    ) -> None:
        """Start, or resume at `position` and remove the rows of the `removed` windows.

        `has_windows`: the target must have other windows. Raises UsageError.
        """
        ...

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """Return a row for each window, as `load` expects it."""
        ...

    def load(self, rows: Sequence[Json]) -> Sequence[str]:
        """Write rows so that readers see them; return a message for each rejected row.

        Raises SinkError.
        """
        ...

    def position(self) -> Any:
        """Make all rows durable; return the position to resume at. Raises SinkError."""
        ...

    def finish(self, *, ended: bool) -> None:
        """End the stream. Raises SinkError.

        A file that is complete only at its end is put in place if `ended`.
        """
        ...


START, END, KEY, PARTIAL = "window_start", "window_end", "window_key", "partial"
TIMES = (START, END)
_SECOND = 1_000_000  # microseconds


# Aggregates whose column starts with integers, and widens with the first float.
_INTEGER_AGGREGATES = ("count", "distinct", "sum", "min", "max")


class WindowRows:
    """A converter of windows to table rows.

    A row has two times, the key as JSON, the fields of the key, the aggregates and `partial`. The
    key is also there as JSON, because 1, true and "1" may become the same value in a column. All
    times have the same number of digits, so that their texts sort like times. `fold` maps names
    that are equal to the target to one text. Raises UsageError if two columns have the same name.
    """

    def __init__(self, schema: WindowSchema, fold: Callable[[str], str] = str) -> None:
        self._schema = schema
        aggregates = [one.name for one in schema.recipe.aggregates]
        self.key: tuple[str, ...] = row_key(schema)
        self.columns = (*TIMES, *self.key[1:], *schema.keys.names, *aggregates, PARTIAL)
        names = Counter(map(fold, self.columns))
        if repeated := next((name for name in self.columns if names[fold(name)] > 1), None):
            raise UsageError(
                f"two columns would be called {repeated!r}: give an aggregate another name "
                "(--agg NAME=...), or rename the field (--jq)"
            )
        self.kinds: dict[str, Kind] = {
            one.name: "integer" if one.kind in _INTEGER_AGGREGATES else "real"
            for one in schema.recipe.aggregates
        }
        window = schema.window
        self._is_whole = window.kind != "session" and not (window.pane % _SECOND)

    def rows(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """Return a row for each window."""
        results = self._schema.recipe.results
        rows = []
        for window in windows:
            fields = self._schema.keys.named(window.key)
            row: dict[str, Any] = {
                START: self._text(window.start),
                END: self._text(window.end),
                KEY: encode(fields).decode(),
                **fields,
                **{name: _number(value) for name, value in results(window.totals).items()},
                PARTIAL: window.partial,
            }
            if not fields:
                del row[KEY]
            rows.append(row)
        return rows

    def keys_of(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """Return the key columns of each window's row."""
        return [{name: row[name] for name in self.key} for row in self.rows(windows)]

    def _text(self, micros: int) -> str:
        text = utc_text(micros)
        return text if self._is_whole or "." in text else f"{text[:-1]}.000000Z"


def row_key(schema: WindowSchema) -> tuple[str, ...]:
    """Return the key columns of rows. Two sessions of a key never start together."""
    return (START, KEY) if schema.keys.names else (START,)


def describe_row(row: dict[str, Json], key: Sequence[str]) -> str:
    """Return the name of the window of a row, for messages."""
    return "window " + " ".join(str(row[name]) for name in key)


def _number(value: Json) -> Any:
    """Return an aggregate; an integer that is not exact as a double becomes a float.

    Columns of integers and floats then need no type that holds larger integers.
    """
    if type(value) is not int or abs(value) <= EXACT:
        return value
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


def window_lines(schema: WindowSchema, windows: Sequence[Window]) -> bytes:
    """Return a JSON line for each window."""
    return encode_lines(
        [
            {
                "event": "window",
                "window_start": utc_text(window.start),
                "window_end": utc_text(window.end),
                "key": schema.keys.named(window.key),
                "aggregates": schema.recipe.results(window.totals),
                **({"partial": True} if window.partial else {}),
            }
            for window in windows
        ]
    )


_WAIT_SECONDS = 1.0  # so that windows are compressed or loaded together


class WindowFileTarget:
    """A JSON Lines file of windows, compressed if its name asks for it."""

    name: str

    def __init__(self, path: str, schema: WindowSchema) -> None:
        self.name, self._schema = path, schema
        self.file: AppendFile = AppendFile(path)
        self._compression = compression_by_name(path)
        self.wait_seconds: float = _WAIT_SECONDS if self._compression else 0.0

    def check_resumable(self) -> None:
        self.file.check_regular()

    def open(
        self,
        position: Any = None,
        removed: Sequence[Window] = (),  # noqa: ARG002 - the file is cut before these windows
        *,
        has_windows: bool = False,  # noqa: ARG002 - `position` tells it
    ) -> None:
        self.file.open(None if position is None else convert(position, AppendPosition))

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        return window_lines(self._schema, windows).splitlines(keepends=True)

    def load(self, rows: Sequence[Json]) -> Sequence[str]:
        lines = b"".join(rows)
        self.file.write(self._compression.compress(lines) if self._compression else lines)
        return ()

    def position(self) -> AppendPosition:
        return self.file.position()

    def finish(self, *, ended: bool) -> None:  # noqa: ARG002 - written lines stay
        try:
            self.file.sync()
        finally:
            self.file.close()


class WindowCsvTarget(WindowFileTarget):
    """A CSV or TSV file of windows, with a header."""

    def __init__(self, path: str, schema: WindowSchema, *, is_safe: bool = False) -> None:
        super().__init__(path, schema)
        self._made, self._is_safe = WindowRows(schema), is_safe
        self._delimiter = "\t" if path.lower().endswith(".tsv") else ","

    def open(
        self, position: Any = None, removed: Sequence[Window] = (), *, has_windows: bool = False
    ) -> None:
        super().open(position, removed, has_windows=has_windows)
        if position is None:
            self.load(self._lines([self._made.columns]))

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        return self._lines(map(_cell, row.values()) for row in self._made.rows(windows))

    def _lines(self, rows: Json) -> list[bytes]:
        return csv_lines(rows, self._delimiter, is_safe=self._is_safe)


def _cell(value: Json) -> Any:
    return value if type(value) is not bool else "true" if value else "false"


_RETRIES = Retries(5, 0.5)  # half a minute for a locked database, or a server that restarts


class WindowTableTarget:
    """A table of windows. A row replaces the row of the same window and key.

    It owns a sink of `target`, and commits each load.
    """

    name: str

    def __init__(self, target: Target, schema: WindowSchema) -> None:
        self.name, self._target = target.name, target
        self._made = WindowRows(schema, fold if target.form in ("sqlite", "duckdb") else str)
        # Any: only databases have `remove` and `sync`.
        self._sink: Any = target.open_sink(retrier=Retrier(_RETRIES))
        self.wait_seconds: float = 0.0 if target.form in ("sqlite", "postgres") else _WAIT_SECONDS

    def check_resumable(self) -> None:
        if not self._target.is_database:
            raise UsageError(
                f"--to {self.name}: a Parquet file is complete only at its end, so no "
                "process can continue it: with --checkpoint, write JSON Lines, CSV or a table"
            )

    def open(
        self,
        position: Any = None,  # noqa: ARG002 - a table has no position
        removed: Sequence[Window] = (),
        *,
        has_windows: bool = False,
    ) -> None:
        if has_windows:
            self._sink.open(must_exist=True)
        else:
            self._sink.open()
        if removed:
            self._sink.remove(self._block(self._made.keys_of(removed)))

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        return self._made.rows(windows)

    def load(self, rows: Sequence[Json]) -> Sequence[str]:
        refusals = self._sink.load(self._block(rows))
        self._sink.commit()
        return [f"{describe_row(rows[one.row], self._made.key)}: {one.message}" for one in refusals]

    def position(self) -> None:
        if self._target.form == "sqlite":
            self._sink.sync()

    def finish(self, *, ended: bool) -> None:
        self._sink.finish(succeeded=ended, ended=ended)

    def _block(self, rows: Sequence[dict[str, Json]]) -> ColumnBlock:
        """Return rows as a block in which an aggregate without values has a kind, in its place.

        Otherwise its column would be created with its first value, and the order of the columns
        would depend on timing. In SQLite, `partial` is 1 or 0, as it was in tables of earlier
        versions.
        """
        if self._target.form == "sqlite":
            rows = [row | {PARTIAL: int(row[PARTIAL])} if PARTIAL in row else row for row in rows]
        block = make_block(rows)
        declared = self._made.kinds
        kinds = [
            declared.get(name, kind) if kind == "null" else kind
            for name, kind in zip(block.names, block.kinds, strict=True)
        ]
        found = ColumnBlock(block.names, kinds, block.values, block.count)
        order = {name: place for place, name in enumerate(self._made.columns)}
        return found.fields(sorted(range(len(block.names)), key=lambda at: order[block.names[at]]))


_DATABASES = ("sqlite", "duckdb", "postgres")


def make_target(
    name: str, schema: WindowSchema, *, table: str | None = None, csv_safe: bool = False
) -> WindowTarget | None:
    """Return the target of the windows of a stream; None for standard output.

    Raises UsageError for an invalid name, and for a target to which nothing can be added.
    """
    form, path = parse_location(name)
    if form == "folder":
        raise UsageError(
            f"--to {name}: windows go into one file or table, not into a folder; write "
            f"{os.path.join(path, 'windows.jsonl')}"
        )
    if form in _DATABASES:
        key = row_key(schema)
        target = Target.parse(
            name, table=table, key=key, mode="upsert", times=TIMES, csv_safe=csv_safe
        )
    else:
        target = Target.parse(name, table=table, csv_safe=csv_safe)
    if target.layout is not None:
        raise UsageError(
            f"--to {name}: windows go into one file, not into one for each value of a field; "
            "a brace in a file name is written twice: {{ and }}"
        )
    if "://" in path:
        raise UsageError(
            f"--to {name}: an object in a store cannot grow; write to a file or a table"
        )
    match form:
        case "stdout":
            return None
        case "lines":
            return WindowFileTarget(path, schema)
        case "csv":
            return WindowCsvTarget(path, schema, is_safe=csv_safe)
        case _:
            return WindowTableTarget(target, schema)
