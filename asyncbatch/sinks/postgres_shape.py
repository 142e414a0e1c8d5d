"""The columns of a table of PostgreSQL, which grow with what comes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import SinkError
from asyncbatch.sinks.columns import NO_FIELDS, Columns
from asyncbatch.sinks.postgres_table import (
    KINDS,
    MOST_COLUMNS,
    TYPES,
    Column,
    columns_of,
    conversion,
    create,
    flaw,
    has_only_exact,
)
from asyncbatch.sinks.postgres_times import TIME, are_times, as_text, mark, unmark
from asyncbatch.sinks.sql import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncbatch.sinks.block import Block, Kind
    from asyncbatch.sinks.columns import ColumnKind
    from asyncbatch.sinks.contract import Contract
    from asyncbatch.sinks.postgres_server import Connection, Server
    from asyncbatch.sinks.postgres_table import Name


class Shape:
    """What the table `name` is like; one that is created has this `key`.

    `number` is what the server calls the table, if there is one, and `types` has its columns
    that take values. `columns` has also those that it lacks yet: null so far, of a type that is
    to be seen.
    """

    def __init__(
        self,
        server: Server,
        name: Name,
        key: Sequence[str],
        contract: Contract | None = None,
        times: Collection[str] = (),
    ) -> None:
        self._server, self._name, self._key, self._times = server, name, key, times
        self.number: int | None = None
        self.types: dict[str, str] = {}
        self._holds = contract is not None and contract.holds
        self._columns = partial(Columns, rich=True, contract=contract, alters=self._alters)
        self.columns = self._columns({}, limit=MOST_COLUMNS, flaw=flaw)
        self._seen: tuple[int | None, list[Column], int] = (None, [], 0)
        self._untyped: set[str] = set()
        """Columns that were made texts, for want of any with a type."""

    def read(self, connection: Connection) -> None:
        """See what the table is now."""
        seen = columns_of(connection, self._name)
        if seen == self._seen:
            return
        self._seen = seen
        self.number, columns, gone = seen
        connection.forget_types()
        self.types = {column.name: column.declared for column in columns if column.takes_values}
        made = {column.name for column in columns if not column.takes_values}
        kinds: dict[str, ColumnKind] = {
            name: kind for name, kind in self.columns.kinds.items() if kind == "null"
        }
        kinds |= {column.name: self._kind(column.declared) for column in columns}
        kinds |= dict.fromkeys(self._untyped & self.types.keys(), "null")

        def unfit(name: str) -> str | None:
            return "the table makes the values of that column" if name in made else flaw(name)

        self.columns = self._columns(kinds, limit=MOST_COLUMNS - gone, flaw=unfit)

    def fit(self, connection: Connection, block: Block) -> str | None:
        """Have the table hold such rows; return why it can hold none of them, if so.

        Raises SinkError if the table cannot be changed.
        """
        changes = self._changes(connection, block)
        if not self.types or any(kind != "null" for kind in changes.values()):
            # Another process may be at it, too: who comes second finds it done.
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            connection.fetch(lock, f"asyncbatch {self._name.sql}")
            self.read(connection)
            changes = self._changes(connection, block)
        typed: dict[str, Kind] = {n: kind for n, kind in changes.items() if kind != "null"}
        if not self.types:
            if not changes:
                return NO_FIELDS
            if missing := [name for name in self._key if name not in typed]:
                return f"no value for {', '.join(missing)}, which the key names"
            self._untyped = set() if typed else set(changes)
            made = self._made_for_times(block, typed)
            types = {name: TYPES[kind] for name, kind in (typed or changes).items()}
            made = [column for column in made if column not in self._times]
            times = dict.fromkeys((*made, *(name for name in self._times if name in types)), TIME)
            create(connection, self._name, types | times, self._key)
            mark(connection, self._name, made)
        elif typed:
            self.alter(connection, typed, self._made_for_times(block, typed))
        self.columns.refresh({name: "null" for name in changes if name not in typed})
        if self._untyped or typed:
            self._untyped -= typed.keys()
            self.read(connection)
        return None

    def untyped(self) -> dict[str, Kind]:
        """Return what the columns that the table lacks are to be, had they no value at all."""
        if not self.types:
            return {}
        kinds = self.columns.kinds.items()
        return {name: "text" for name, kind in kinds if kind == "null" and name not in self.types}

    def alter(
        self, connection: Connection, kinds: Mapping[str, Kind], for_times: Collection[str] = ()
    ) -> None:
        """Add columns and give columns other types, all in one pass. Raises SinkError."""
        actions = []
        for name, kind in kinds.items():
            column, declared = quote(name), TIME if name in for_times else TYPES[kind]
            if name in self.types:
                made = self._conversion(name, kind)
                actions.append(f"ALTER COLUMN {column} TYPE {declared} USING {made}")
            else:
                actions.append(f"ADD COLUMN {column} {declared}")
        try:
            connection.execute(f"ALTER TABLE {self._name.sql} {', '.join(actions)}")
            mark(connection, self._name, for_times)
            unmark(connection, self._name, (n for n in kinds if self.types.get(n) == TIME))
        except Exception as error:
            if not self._server.is_error(error) or self._server.is_passing(error):
                raise
            wanted = ", ".join(f"column {name} as {TYPES[kind]}" for name, kind in kinds.items())
            raise SinkError(
                f"cannot write {self._server.name}: table {self._name.table} needs {wanted} to"
                f" hold what came, but: {self._server.explained(error)}; change it yourself, or"
                " name another table"
            ) from None

    def _kind(self, declared: str) -> ColumnKind:
        """Return what a column of this type is: one for times takes texts if it may become one."""
        return "any" if self._holds and declared == TIME else KINDS.get(declared, "any")

    def _alters(self, name: str, value: Any) -> bool:  # noqa: ANN401 - JSON
        """Whether a column for times could not stay one with this value."""
        return self.types.get(name) == TIME and not (
            isinstance(value, str) and are_times("text", [value])
        )

    def _changes(self, connection: Connection, block: Block) -> dict[str, Kind]:
        changes = self.columns.changes(block, partial(has_only_exact, connection, self._name))
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if self.types.get(name) == TIME and kind != "null" and not are_times(kind, values):
                changes[name] = "text"
        return changes

    def _conversion(self, column: str, kind: Kind) -> str:
        if self.types[column] == TIME:
            return as_text(quote(column))
        return conversion(column, self.columns.kinds[column], kind)

    def _made_for_times(self, block: Block, kinds: Mapping[str, Kind]) -> list[str]:
        """Return which columns that are to be made are for times; a key's stay as they came."""
        made = kinds.keys() - self.types.keys() - set(self._key)
        columns = zip(block.names, block.kinds, block.values, strict=True)
        return [name for name, kind, values in columns if name in made and are_times(kind, values)]
