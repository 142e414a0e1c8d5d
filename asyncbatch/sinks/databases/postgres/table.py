"""The schemas of PostgreSQL tables: columns, keys, new types, time columns."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck
from asyncbatch.sinks.columns.table import NO_FIELDS, Columns
from asyncbatch.sinks.databases.base import GENERATED_FLAW
from asyncbatch.sinks.databases.sql import TableName, creation, inexactness, quote, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.columns.block import ColumnBlock, ColumnKind, Kind
    from asyncbatch.sinks.databases.postgres.server import PostgresConnection, PostgresServer

# The type of a column that was created for times. The server spells the type of other columns in
# full ("timestamp with time zone"), so this short name marks them.
TIME = "timestamptz"
# The comment on a column that was created for times. Later runs look for it: do not change it.
TIME_COMMENT = "made by asyncbatch: becomes text if something else than a time comes"
# The comment on every other column that a sink created. An upsert may set these to null.
MADE_COMMENT = "made by asyncbatch"
# Day, time and zone. PostgreSQL keeps at most six digits of a second.
_ISO = re.compile(
    r"[1-9]\d{3}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
    r"(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)"
)


def are_times(kind: Kind, values: Iterable[Json]) -> bool:
    """Whether all values of a column that are not null are times with a zone."""
    if kind != "text":
        return False
    try:
        return all(
            value is None or (_ISO.fullmatch(value) and datetime.fromisoformat(value))
            for value in values
        )
    except ValueError:  # for instance the 30th of February
        return False


def times(values: Sequence[str | None]) -> list[datetime | None]:
    """Return the times in a column for which `are_times` is true."""
    parse = datetime.fromisoformat
    return [None if value is None else parse(value) for value in values]


def mark_columns(
    connection: PostgresConnection,
    table: TableName,
    columns: Iterable[str],
    for_times: Collection[str] = (),
) -> None:
    """Mark columns as created by us, and some of them as created for times, by a comment."""
    marks = [
        f"COMMENT ON COLUMN {table.sql}.{quote(name)} IS"
        f" '{TIME_COMMENT if name in for_times else MADE_COMMENT}'"
        for name in columns
    ]
    if marks:
        connection.execute("; ".join(marks))


def as_text(column: str) -> str:
    """Return the SQL expression for a time column as text, in UTC and with Z."""
    value = f"({column} AT TIME ZONE 'UTC')"
    fraction = (
        f"CASE WHEN {value} = date_trunc('second', {value}) THEN ''"
        f" WHEN {value} = date_trunc('milliseconds', {value}) THEN to_char({value}, '.MS')"
        f" ELSE to_char({value}, '.US') END"
    )
    return f"to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || {fraction} || 'Z'"


MOST_NAME_BYTES = 63  # of a name: PostgreSQL cuts longer ones
MOST_COLUMNS = 1600  # a limit of PostgreSQL; dropped columns count
TYPES: dict[ColumnKind, str] = {
    "null": "text",
    "boolean": "boolean",
    "integer": "bigint",
    "real": "double precision",
    "numeric": "numeric",
    "text": "text",
    "json": "jsonb",
}
# The kinds of column types that can widen. A column of another type accepts values that fit.
KINDS: dict[str, ColumnKind] = {
    "boolean": "boolean",
    "bigint": "integer",
    "double precision": "real",
    "numeric": "numeric",
    "text": "text",
    "character varying": "text",
    TIME: "text",
}
_SYSTEM_COLUMNS = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))
_QUOTES = "$asyncbatch$"  # quotes a script within a script


IDENTITY_FLAW = (
    f"{GENERATED_FLAW} (GENERATED ALWAYS AS IDENTITY); --override-identity writes those of the"
    " records, in an upsert only into the key"
)


class PostgresColumn(NamedTuple):
    """A column of a table."""

    name: str
    declared: str  # the server's name of its type; `TIME` if it was created for times
    takes_values: bool  # false if the table generates its values
    is_identity: bool  # whether it is GENERATED ALWAYS AS IDENTITY
    is_made: bool  # whether a sink created it
    base: str  # the server's name of its base type, if its type is a domain
    default: str | None  # the SQL expression of its default


def column_flaw(name: str) -> str | None:
    """Return the error of a column name, or None."""
    if not name:
        return "PostgreSQL does not allow an empty name"
    if "\0" in name:
        return "PostgreSQL does not allow a NUL character in a name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not valid Unicode: it has half of a surrogate pair"
    if size > MOST_NAME_BYTES:
        return f"its name has {size} bytes, and PostgreSQL would cut it to {MOST_NAME_BYTES}"
    if name in _SYSTEM_COLUMNS:
        return "PostgreSQL has a system column of this name in each table"
    return None


def find_table(connection: PostgresConnection, name: TableName) -> tuple[int, str, str] | None:
    """Return the OID, the kind and the schema of the relation of this name, or None.

    The kinds "r" and "p" are tables.
    """
    query = (
        "SELECT c.oid::bigint, c.relkind::text, n.nspname::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)"
    )
    rows = connection.fetch(query, name.sql)
    return tuple(rows[0]) if rows else None


def may_create(connection: PostgresConnection, name: TableName) -> bool:
    """Whether the role may create a table of this name."""
    query = "SELECT has_schema_privilege(coalesce($1, current_schema()), 'CREATE')"
    return bool(connection.fetch(query, name.schema)[0][0])


def lock_statement(name: TableName) -> str:
    """Return the statement that locks a table, if it exists, in a transaction."""
    statement = f"LOCK TABLE {name.sql} IN ROW EXCLUSIVE MODE"
    literals = [text.replace("'", "''") for text in (name.sql, statement)]
    body = f"IF to_regclass('{literals[0]}') IS NOT NULL THEN EXECUTE '{literals[1]}'; END IF;"
    return f"DO {_QUOTES} BEGIN {body} END {_QUOTES}"


def columns_of(
    connection: PostgresConnection, name: TableName
) -> tuple[int | None, list[PostgresColumn], int]:
    """Return the OID of a table, its columns, and how many columns were dropped.

    The OID is None if there is no table.
    """
    query = (
        "SELECT attrelid::bigint, attname::text, format_type(atttypid, atttypmod),"
        " attgenerated = '' AND attidentity <> 'a', attisdropped,"
        " atttypid = 'timestamptz'::regtype AND col_description(attrelid, attnum) = $2,"
        " attidentity = 'a', coalesce(col_description(attrelid, attnum) IN ($2, $3), false),"
        # The type below all domains, with the modifiers that the lowest of them sets.
        " (WITH RECURSIVE base(id, modifier, depth) AS (SELECT atttypid, atttypmod, 0 UNION ALL"
        " SELECT typbasetype, CASE WHEN typtypmod < 0 THEN modifier ELSE typtypmod END, depth + 1"
        " FROM base JOIN pg_type t ON t.oid = id WHERE typtype = 'd')"
        " SELECT format_type(id, modifier) FROM base ORDER BY depth DESC LIMIT 1),"
        " CASE WHEN attidentity = 'd' THEN format('nextval(%L::regclass)',"
        " pg_get_serial_sequence(attrelid::regclass::text, attname)) WHEN attgenerated = ''"
        " THEN coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
        " WHERE adrelid = attrelid AND adnum = attnum),"
        " (SELECT typdefault FROM pg_type WHERE pg_type.oid = atttypid AND typtype = 'd')) END"
        " FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 ORDER BY attnum"
    )
    rows = connection.fetch(query, name.sql, TIME_COMMENT, MADE_COMMENT)
    there = [
        PostgresColumn(row[1], TIME if row[5] else row[2], row[3], *row[6:])
        for row in rows
        if not row[4]
    ]
    return rows[0][0] if rows else None, there, len(rows) - len(there)


_KEY_INDEX = (
    "FROM pg_index i WHERE indrelid = $1::bigint::oid AND indisunique AND indisvalid"
    " AND indpred IS NULL AND indexprs IS NULL AND (SELECT"
    ' array_agg(attname::text ORDER BY attname::text COLLATE "C") FROM pg_attribute'
    " WHERE attrelid = i.indrelid AND attnum = ANY((indkey::int2[])[0:indnkeyatts - 1])) = $2"
)


def has_unique_key(connection: PostgresConnection, table: int, key: Sequence[str]) -> bool:
    """Whether an index keeps the values of these columns unique at any time."""
    query = f"SELECT 1 {_KEY_INDEX} AND indimmediate"
    return bool(connection.fetch(query, table, sorted(key, key=str.encode)))


def deferrable_keys(connection: PostgresConnection, table: int, key: Sequence[str]) -> list[str]:
    """Return the names of the deferrable constraints that keep these columns unique."""
    query = f"SELECT indexrelid::regclass::text {_KEY_INDEX} AND NOT indimmediate"
    return [row[0] for row in connection.fetch(query, table, sorted(key, key=str.encode))]


def dependents(connection: PostgresConnection, table: int) -> list[str]:
    """Return the names of the views and tables that depend on a table."""
    query = (
        "SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend d"
        " JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        " WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid"
        " AND r.ev_class <> d.refobjid UNION SELECT conrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND confrelid = $1::bigint::oid AND conrelid <> confrelid ORDER BY 1"
    )
    return [row[0] for row in connection.fetch(query, table)]


def conversion(column: str, have: ColumnKind, kind: ColumnKind) -> str:
    """Return the SQL expression that converts a column from one kind to another."""
    value, declared = quote(column), TYPES[kind]
    if have == "null":
        return "NULL"
    if have == "json":
        return f"{value} #>> '{{}}'"  # a string without quotes, as earlier versions stored
    if have == "real" and kind == "numeric":
        return f"{value}::text::numeric"  # a direct cast keeps only 15 digits
    if have in ("real", "numeric"):  # as `as_sent` writes numbers into a column of texts
        short = f"replace({value}::double precision::text, 'e-0', 'e-')"
        return (
            f"CASE WHEN {value} = 0 THEN '0' WHEN abs({value}) < 1e-5 THEN {short}"
            f" ELSE {value}::text::numeric::text END"
        )
    return f"{value}::{declared}"


class FixedTableError(Exception):
    """The server does not let this role change the columns of a table in this way."""


class TableShape:
    """The columns of the table `name`, and their changes. A new table gets this `key`.

    A sink owns it. Call `read` in each transaction, then `fit` for each block. `number` is the OID
    of the table, or None. `types` has the declared types of the columns that can be written,
    `bases` the types below their domains, `defaults` the SQL expressions of their defaults. `made`
    are the columns that a sink created, `identities` those that are GENERATED ALWAYS AS IDENTITY,
    and `generated` has the reason against values for columns that cannot be written. `overridden`
    returns whether an identity can be written.
    `columns` also has fields without a column yet, because all their values were null.
    """

    def __init__(
        self,
        server: PostgresServer,
        name: TableName,
        key: Sequence[str],
        contract: SchemaContractCheck | None = None,
        times: Collection[str] = (),
        *,
        overridden: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._server, self._name, self._key, self._times = server, name, key, times
        self._is_overridden = overridden
        self.number: int | None = None
        self.fixed: str | None = None  # the reason why the table cannot be changed
        self.types: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        self.defaults: dict[str, str] = {}
        self.made: set[str] = set()
        self.identities: set[str] = set()
        self.generated: dict[str, str] = {}
        self._holds = contract is not None and contract.holds
        self.columns: Columns = Columns(
            {},
            limit=MOST_COLUMNS,
            flaw=lambda name: self.generated.get(name) or column_flaw(name),
            rich=True,
            contract=contract,
            alters=self._alters,
        )
        self._seen: tuple[int | None, list[PostgresColumn], int] = (None, [], 0)
        # Columns created as text, because all values were null.
        self._untyped: set[str] = set()
        self.is_new: bool = False  # whether it created the table

    def read(self, connection: PostgresConnection) -> None:
        """Read the columns of the table."""
        seen = columns_of(connection, self._name)
        if seen == self._seen:
            return
        self._seen = seen
        self.number, columns, dropped = seen
        connection.forget_types()
        self.bases = {column.name: column.base for column in columns}
        self.defaults = {
            column.name: column.default for column in columns if column.default is not None
        }
        self.made = {column.name for column in columns if column.is_made}
        self.identities = {column.name for column in columns if column.is_identity}
        self.generated = {
            column.name: IDENTITY_FLAW if column.is_identity else GENERATED_FLAW
            for column in columns
            if not column.takes_values
            and not (column.is_identity and self._is_overridden(column.name))
        }
        self.types = {
            column.name: column.declared for column in columns if column.name not in self.generated
        }
        kinds: dict[str, ColumnKind] = {
            name: kind
            for name, kind in self.columns.kinds.items()
            if kind == "null" and self.fixed is None
        }
        kinds |= {column.name: self._kind(column) for column in columns}
        kinds |= dict.fromkeys(self._untyped & self.types.keys(), "null")
        self.columns.reset(kinds, limit=MOST_COLUMNS - dropped)

    def fit(self, connection: PostgresConnection, block: ColumnBlock) -> str | None:
        """Create or change the table so that it can hold these rows.

        Returns the reason if it cannot hold any of them, or None. Raises FixedTableError if the
        table cannot be changed; call `fix` then.
        """
        changes = self.changes(connection, block)
        if not self.types or any(kind != "null" for kind in changes.values()):
            # Another process may make the same change: the second one waits, then finds it.
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            connection.fetch(lock, f"asyncbatch {self._name.sql}")
            self.read(connection)
            changes = self.changes(connection, block)
        typed = {name: kind for name, kind in changes.items() if kind != "null"}
        if not self.types:
            if not changes:
                return NO_FIELDS
            if missing := [name for name in self._key if name not in typed]:
                return f"no value for {', '.join(missing)}, which the key needs"
            self._untyped = set() if typed else {next(iter(changes))}
            made = self._made_for_times(block, typed)
            types = {name: TYPES[kind] for name, kind in typed.items()}
            types |= dict.fromkeys(self._untyped, TYPES["null"])
            made = [column for column in made if column not in self._times]
            times = dict.fromkeys((*made, *(name for name in self._times if name in types)), TIME)
            connection.execute(creation(self._name.sql, types | times, self._key))
            mark_columns(connection, self._name, types, made)
            self.is_new = True
        elif typed:
            self.alter(connection, typed, self._made_for_times(block, typed))
        self.columns.refresh({name: "null" for name in changes if name not in typed})
        if self._untyped or typed:
            self._untyped -= typed.keys()
            self.read(connection)
        return None

    def sort_columns(self, connection: PostgresConnection) -> None:
        """Put the columns of a new table in the order of their names, in a copy of it.

        A table that others use already stays as it is.
        """
        self.read(connection)
        names, number = sorted(self.types), self.number
        is_ours = self.is_new and number is not None and self.made == self.types.keys()
        if list(self.types) == names or not is_ours or dependents(connection, number or 0):
            return
        copy, table = self._name.sibling("sorted", MOST_NAME_BYTES), self._name.sql
        connection.execute(creation(copy.sql, {n: self.types[n] for n in names}, self._key))
        mark_columns(connection, copy, names, [name for name in names if self.types[name] == TIME])
        listed = quoted(names)
        connection.execute(f"INSERT INTO {copy.sql} ({listed}) SELECT {listed} FROM {table}")  # noqa: S608 - quoted
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE {copy.sql} RENAME TO {quote(self._name.table)}")
        self.read(connection)

    def state(self) -> dict[str, Any]:
        """Return a copy of the state before a change of the table."""
        return {**vars(self), "types": dict(self.types), "_untyped": set(self._untyped)} | {
            "_columns_state": self.columns.state()
        }

    def restore(self, connection: PostgresConnection, state: dict[str, Any]) -> None:
        """Return to an earlier state, after a change of the table was undone."""
        columns_state = state.pop("_columns_state")
        vars(self).update(state)
        self.columns.restore(columns_state)
        connection.forget_types()

    def alter(
        self,
        connection: PostgresConnection,
        kinds: Mapping[str, ColumnKind],
        for_times: Collection[str] = (),
    ) -> None:
        """Add columns and change types in one statement. Raises FixedTableError."""
        actions = []
        for name, kind in kinds.items():
            column, declared = quote(name), TIME if name in for_times else TYPES[kind]
            if name in self.types:
                made = self._conversion(name, kind)
                actions.append(f"ALTER COLUMN {column} TYPE {declared} USING {made}")
            else:
                actions.append(f"ADD COLUMN {column} {declared}")
        try:
            connection.execute(
                f"SAVEPOINT altering; ALTER TABLE {self._name.sql} {', '.join(actions)}"
            )
            # Columns that are new, and those that were created for times.
            marked = [name for name in kinds if self.types.get(name, TIME) == TIME]
            mark_columns(connection, self._name, marked, for_times)
            connection.execute("RELEASE altering")
        except Exception as error:
            if not self._server.is_error(error) or self._server.is_transient(error):
                raise
            connection.execute("ROLLBACK TO altering; RELEASE altering")
            wanted = ", ".join(f"column {name} as {TYPES[kind]}" for name, kind in kinds.items())
            raise FixedTableError(
                f"it cannot have {wanted}: {self._server.explained(error)}"
            ) from None

    def fix(self, connection: PostgresConnection, reason: str) -> None:
        """Leave the table as it is from now on, as the schema contract freeze does."""
        self.fixed = reason
        self._holds = True
        self.columns.contract = SchemaContractCheck("freeze")
        self._seen = (None, [], 0)
        self.read(connection)

    def _kind(self, column: PostgresColumn) -> ColumnKind:
        """Return the kind of a column.

        With `evolve`, columns that a sink created for times or nested values may become text.
        """
        if column.declared == "jsonb":
            return "json" if column.is_made and not self._holds else "any"
        return (
            "any" if self._holds and column.declared == TIME else KINDS.get(column.declared, "any")
        )

    def _alters(self, name: str, value: Json) -> bool:
        """Whether a value would make a time column become text."""
        return self.types.get(name) == TIME and not (
            isinstance(value, str) and are_times("text", [value])
        )

    def changes(self, connection: PostgresConnection, block: ColumnBlock) -> dict[str, ColumnKind]:
        """Return the new and wider columns that a block needs, with their kinds."""
        changes = self.columns.changes(
            block, lambda name: not connection.fetch(inexactness(self._name.sql, name))
        )
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if self.types.get(name) == TIME and kind != "null" and not are_times(kind, values):
                changes[name] = "text"
        return changes

    def _conversion(self, column: str, kind: ColumnKind) -> str:
        if self.types[column] == TIME:
            return as_text(quote(column))
        return conversion(column, self.columns.kinds[column], kind)

    def _made_for_times(self, block: ColumnBlock, kinds: Mapping[str, ColumnKind]) -> list[str]:
        """Return the new columns to create for times. Key columns stay text."""
        made = kinds.keys() - self.types.keys() - set(self._key)
        columns = zip(block.names, block.kinds, block.values, strict=True)
        return [name for name, kind, values in columns if name in made and are_times(kind, values)]
