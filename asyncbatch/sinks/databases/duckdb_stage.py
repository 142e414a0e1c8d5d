"""The staging table of a load into DuckDB: rows are checked in it, then moved."""

from __future__ import annotations

from itertools import chain, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.columns.table import cells
from asyncbatch.sinks.databases.duckdb_types import OwnType
from asyncbatch.sinks.databases.sql import fold, quote, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from asyncbatch.sinks.columns.block import ColumnBlock, ColumnKind

TYPES: dict[ColumnKind, str] = {
    "null": "VARCHAR",
    "boolean": "BOOLEAN",
    "integer": "BIGINT",
    "real": "DOUBLE",
    "text": "VARCHAR",
}
_STAGE = 'temp.main."asyncbatch: rows of one load"'


class Constraints(NamedTuple):
    """The constraints of a table."""

    not_null: list[str]  # columns
    checks: list[str]  # SQL conditions
    unique: list[tuple[str, ...]]  # columns that are unique together
    defaults: set[str]  # columns that have a value if a row names none
    generated: dict[str, str]  # the expressions of generated columns, by their folded names
    foreign: list[ForeignKey]  # to other tables


class ForeignKey(NamedTuple):
    """Columns whose values must be those of a row of another table."""

    names: tuple[str, ...]
    table: str
    others: tuple[str, ...]  # its columns


class StayingRows(NamedTuple):
    """The rows of the table that stay, with new values, because other rows refer to them.

    DuckDB can neither delete such a row, nor change its `fixed` columns. Names are folded.
    """

    condition: str  # in SQL, about a row t
    fixed: Collection[str]
    generated: Collection[str]  # columns
    tables: str  # that refer to them
    waiting: str = ""  # a table with the keys of rows that wait for new values


class DuckdbStage:
    """A temporary table with the rows of one load, numbered from 0 in column n.

    Its column c0 has the first field of the block, and so on. `table` is quoted; `types` has the
    declared types of its columns. Values of types that are not in `TYPES` are cast from text.
    Columns `in_utc` hold times in UTC without their Z. A field that a row lacks gets the default of
    its column, an SQL expression in `defaults`. Call `fill` first, then the checks and `drop`, then
    `move`, `remove` or `discard`.

    `changed` has an expression for each column of the table whose type is different before `move`.
    `is_new`: the table does not exist before `move`. `key` finds the row of a staged row.
    `replaces`: a staged row replaces it. Either way, `staying` rows get its values.
    """

    def __init__(
        self,
        connection: Any,
        table: str,
        types: Mapping[str, str],
        changed: Mapping[str, str] = MappingProxyType({}),
        in_utc: Collection[str] = (),
        *,
        defaults: Mapping[str, str] = MappingProxyType({}),
        is_new: bool = False,
        key: Sequence[str] = (),
        replaces: bool = False,
        staying: StayingRows | None = None,
    ) -> None:
        self._key, self._replaces, self._staying = key, replaces, staying
        self._in_utc, self._defaults = in_utc, defaults
        self._execute, self._table, self._types = connection.execute, table, types
        self._is_new = is_new
        self._changed = {fold(name): expression for name, expression in changed.items()}
        self._block: ColumnBlock
        self._source = self._order = ""
        self._parameters: list[str] = []
        # The staged column of each column, by its folded name.
        self._names: dict[str, str] = {}

    def fill(self, block: ColumnBlock, *, needs_checks: bool) -> None:
        """Stage the rows of a block. Its fields must be columns of the table.

        If no check is needed, the rows are not staged, and only `move` may follow.
        """
        self._block = block
        self._names = {fold(name): f"c{place}" for place, name in enumerate(block.names)}
        lists, made, parameters = [], ["n"], []
        known = {declared: kind for kind, declared in TYPES.items()}
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            column, declared = self._names[fold(name)], self._types[name]
            own = None if declared in known else OwnType(declared)
            sent = own.texts(values, kind) if own else cells(values, kind, known[declared])
            lists.append(f"unnest(?::JSON::{'VARCHAR' if own else declared}[]) AS {column}")
            parameters.append(encode(sent).decode())
            made.append(own.cast(column) if own else column)
            if name in self._defaults and name in block.present:
                lists.append(f"unnest(?::JSON::UTINYINT[]) AS {column}_present")
                parameters.append(encode(list(block.present[name])).decode())
                default = f"ELSE CAST({self._defaults[name]} AS {declared}) END"
                made[-1] = f"CASE WHEN {column}_present = 1 THEN {made[-1]} {default}"
            made[-1] += f" AS {column}"
            if own:
                is_misfit = f"{column} NOTNULL AND {own.cast(column)} IS NULL"
                made.append(f"({is_misfit}) AS {column}_misfit")
                made.append(f"{own.shown(column)} AS {column}_shown")
        numbers = f"unnest(range({block.count})) AS n"
        select = f"SELECT {', '.join(made)} FROM (SELECT {', '.join([numbers, *lists])})"  # noqa: S608 - quoted
        self._source, self._order, self._parameters = f"({select})", "", parameters
        if needs_checks or any(self._types[name] not in known for name in block.names):
            self._execute(f"CREATE OR REPLACE TEMP TABLE {_STAGE} AS {select}", parameters)
            self._source, self._order, self._parameters = _STAGE, " ORDER BY n", []

    def misfits(self, constraints: Constraints) -> dict[int, str]:
        """Return reasons against rows with values that a column or condition rejects."""
        reasons: dict[int, str] = {}
        for name, values in zip(self._block.names, self._block.values, strict=True):
            declared = self._types[name]
            if declared not in TYPES.values():
                for row in self._rows(f"{self._names[fold(name)]}_misfit"):
                    reason = f"column {name} is {declared}, which cannot hold {values[row]!r}"
                    reasons.setdefault(row, reason)
                for row, loss in self._losses(name):
                    reasons.setdefault(row, f"column {name} is {declared}, which {loss}")
        for row, reason in chain(self._violations(constraints), self._refused_changes()):
            reasons.setdefault(row, reason)
        return reasons

    def _violations(self, constraints: Constraints) -> Iterator[tuple[int, str]]:
        """Yield rows that violate a constraint, with the reason.

        The insertion would find them, too, but its error ends the transaction.
        """
        for name in constraints.not_null:
            rows: Iterable[int] = ()
            if column := self._names.get(fold(name)):
                rows = self._rows(f"{column} IS NULL")
            elif name not in constraints.defaults:
                rows = range(self._block.count)
            for row in rows:
                yield row, f"column {name} cannot be null"
        for check in constraints.checks:
            for row in self._failing(check):
                yield row, f"the table's check fails: {check}"
        for name, expression in constraints.generated.items():
            # Only an error is null: a struct with null is not.
            for row in self._failing(f"TRY(struct_pack(v := {expression})) IS NOT NULL"):
                yield row, f"column {name} cannot be generated as {expression}"
        for key in constraints.foreign:
            for row in self._without_parent(key):
                yield row, f"no row of table {key.table} has this {', '.join(key.names)}"

    def _losses(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield rows with a value that the type of a column would change, with the loss."""
        if name in self._in_utc:
            return
        own, place = OwnType(self._types[name]), self._block.names.index(name)
        kind, values = self._block.kinds[place], self._block.values[place]
        texts = own.texts(values, kind)
        column = f"{self._names[fold(name)]}_shown"
        query = f"SELECT n, {column} FROM {_STAGE} WHERE {column} NOTNULL ORDER BY n"  # noqa: S608 - quoted
        for row, shown in self._execute(query).fetchall():
            is_string = kind == "text" or (kind == "mixed" and values[row][0] == '"')
            if loss := own.loss(texts[row] or "", shown, is_string=is_string):
                yield row, loss

    def _refused_changes(self) -> Iterator[tuple[int, str]]:
        """Yield rows that would change a fixed column of a row that stays, with the reason."""
        if not (staying := self._staying):
            return
        key = set(map(fold, self._key))
        for name in self._types:
            if fold(name) not in staying.fixed or fold(name) in key:
                continue
            other = f"t.{quote(name)} IS DISTINCT FROM {self._new_value(name)}"
            for row in self._rows_with(f"({staying.condition}) AND {other}"):
                reason = f"has rows that refer to this {', '.join(self._key)}"
                reason = f"table {staying.tables} {reason}, so DuckDB cannot change its {name}"
                yield row, reason

    def _rows_with(self, condition: str) -> list[int]:
        """Return the rows whose key a row t of the table has that meets a condition."""
        query = f"SELECT s.n FROM {_STAGE} s JOIN {self._table} t ON {self._is_own}"  # noqa: S608 - quoted
        rows = self._execute(f"{query} WHERE {condition} ORDER BY s.n").fetchall()
        return [row for (row,) in rows]

    def _new_value(self, name: str) -> str:
        """Return the SQL expression for the value that a staged row s has in a column."""
        if column := self._names.get(fold(name)):
            return f"s.{column}"
        default = self._defaults.get(name, "NULL")
        return f"CAST({default} AS {self._types[name]})"

    def clashes(self, unique: Sequence[tuple[str, ...]], edges: Sequence[int]) -> dict[int, str]:
        """Return reasons against rows that repeat a unique value.

        `edges` divides the rows into groups. A group is rejected as a whole.
        """
        found: dict[int, list[tuple[object, int, bool, str]]] = {}
        for names in unique:
            if self._names.keys() >= set(map(fold, names)):
                reason = f"a row with the same {', '.join(names)} exists already"
                for row, number, owner, is_there in self._repeated(names):
                    found.setdefault(row, []).append(((names, number), owner, is_there, reason))
        reasons: dict[int, str] = {}
        accepted: dict[object, int] = {}
        for start, stop in pairwise(edges):
            here: dict[object, int] = {}
            clash = None
            for value, owner, is_there, reason in chain(
                *(found.get(at, ()) for at in range(start, stop))
            ):
                others = accepted.get(value, owner), here.setdefault(value, owner)
                if is_there or others != (owner, owner):
                    clash = clash or reason
            if clash:
                reasons.update(dict.fromkeys(range(start, stop), clash))
            else:
                accepted |= here
        return reasons

    def drop(self, rows: Collection[int]) -> None:
        """Remove rows from the stage."""
        if not rows:
            return
        query = f"DELETE FROM {_STAGE} WHERE n IN (SELECT unnest(?::JSON::BIGINT[]))"  # noqa: S608 - a constant
        self._execute(query, [encode(list(rows)).decode()])

    def move(self) -> None:
        """Insert the rows. If they replace others, the last row of a key does.

        The columns of the table must have the types of the rows by now.
        """
        self._changed = {}
        where = latest = ""
        if self._replaces:
            self._delete_existing()
            partition = ", ".join(self._names[fold(name)] for name in self._key)
            latest = f" QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY n DESC) = 1"
        if self._staying:
            self._update(self._staying, latest)
            there = f"SELECT 1 FROM {self._table} t WHERE {self._is_own}"  # noqa: S608 - quoted
            where = f" s WHERE NOT EXISTS ({there})"
        names = [name for name in self._types if fold(name) in self._names]
        values = [self._names[fold(name)] for name in names]
        if not names:
            names, values = list(self._types)[:1], ["NULL"]
        self._execute(
            f"INSERT INTO {self._table} ({quoted(names)})"  # noqa: S608 - quoted
            f" SELECT {', '.join(values)} FROM {self._source}{where}{latest}{self._order}",
            self._parameters,
        )
        self.discard()

    def _update(self, staying: StayingRows, latest: str) -> None:
        """Give the rows that stay the values of the staged rows with their key."""
        kept = {*map(fold, self._key), *staying.fixed, *staying.generated}
        pairs = [f"{quote(n)} = {self._new_value(n)}" for n in self._types if fold(n) not in kept]
        if pairs:
            self._execute(
                f"UPDATE {self._table} t SET {', '.join(pairs)}"  # noqa: S608 - quoted
                f" FROM (SELECT * FROM {_STAGE}{latest}) s"
                f" WHERE {self._is_own} AND ({staying.condition})"
            )
        if staying.waiting:
            self._execute(f"DELETE FROM {staying.waiting} t USING {_STAGE} s WHERE {self._is_own}")  # noqa: S608 - quoted

    @property
    def existing(self) -> str:
        """The SQL condition that a row t of the table has the key of a staged row."""
        return f"EXISTS (SELECT 1 FROM {_STAGE} s WHERE {self._is_own})"  # noqa: S608 - quoted

    def owners(self, owner: str) -> dict[int, str | None]:
        """Return the value of an expression of the row `t` with the same key, by staged row.

        Rows that stay have no owner.
        """
        query = f"SELECT s.n, {owner} FROM {_STAGE} s JOIN {self._table} t ON {self._is_own}"  # noqa: S608 - quoted
        return dict(self._execute(f"{query}{self._unless_staying}").fetchall())

    def remove(self) -> None:
        """Delete the rows of the table that have the key of a staged row, but none that stays."""
        self._delete_existing()
        self.discard()

    def discard(self) -> None:
        """Drop the staged rows."""
        if self._source == _STAGE:
            self._execute(f"DROP TABLE {_STAGE}")

    @property
    def _is_own(self) -> str:
        """The SQL condition that a row t of the table has the key of a staged row s."""
        return self._same(self._key, [self._names[fold(name)] for name in self._key])

    @property
    def _unless_staying(self) -> str:
        return f" AND NOT ({self._staying.condition})" if self._staying else ""

    def _delete_existing(self) -> None:
        deletion = f"DELETE FROM {self._table} t USING {_STAGE} s WHERE {self._is_own}"  # noqa: S608 - quoted
        self._execute(f"{deletion}{self._unless_staying}")

    def _rows(self, condition: str) -> list[int]:
        query = f"SELECT n FROM {_STAGE} WHERE {condition} ORDER BY n"  # noqa: S608 - quoted
        return [row for (row,) in self._execute(query).fetchall()]

    def _failing(self, check: str) -> list[int]:
        """Return the numbers of the rows that violate a condition."""
        columns = ", ".join(
            f"{self._names.get(fold(name), 'NULL')} AS {quote(name)}" for name in self._types
        )
        query = f'SELECT n AS "asyncbatch n", {columns} FROM {_STAGE}'  # noqa: S608 - quoted
        query = f'SELECT "asyncbatch n" FROM ({query}) WHERE NOT ({check}) ORDER BY 1'  # noqa: S608 - the table's own
        return [row for (row,) in self._execute(query).fetchall()]

    def _without_parent(self, key: ForeignKey) -> list[int]:
        """Return the numbers of the rows whose values of a foreign key no row has."""
        columns = [self._names.get(fold(name)) for name in key.names]
        if None in columns:  # null refers to no row
            return []
        there = " AND ".join(f"s.{column} NOTNULL" for column in columns)
        pairs = zip(key.others, columns, strict=True)
        same = " AND ".join(f"r.{quote(other)} = s.{column}" for other, column in pairs)
        query = (
            f"SELECT n FROM {_STAGE} s WHERE {there} AND NOT EXISTS"  # noqa: S608 - quoted
            f" (SELECT 1 FROM {quote(key.table)} r WHERE {same}) ORDER BY n"
        )
        return [row for (row,) in self._execute(query).fetchall()]

    def _repeated(self, names: Sequence[str]) -> list[tuple[int, int, int, bool]]:
        """Return a row number, value number, owner and `is_there` for each repeated value.

        Rows with one owner do not clash: the last of them replaces the others. `is_there`: a row of
        the table has the value, and does not get the values of the staged row itself.
        """
        columns = [self._names[fold(name)] for name in names]
        together = ", ".join(columns)
        there = " AND ".join(f"{column} NOTNULL" for column in columns)
        is_there = "false"
        if not self._is_new:
            same = self._same(names, columns)
            if self._replaces:
                same += f" AND NOT ({self._is_own})"
            elif self._staying:
                same += f" AND NOT ({self._is_own} AND ({self._staying.condition}))"
            is_there = f"EXISTS (SELECT 1 FROM {self._table} t WHERE {same})"  # noqa: S608 - quoted
        key = ", ".join(self._names[fold(name)] for name in self._key)
        owner = f"dense_rank() OVER (ORDER BY {key})" if self._replaces else "n"
        query = (
            f"SELECT n, value, owner, is_there FROM (SELECT n, {owner} AS owner,"  # noqa: S608 - quoted
            f" dense_rank() OVER (ORDER BY {together}) AS value,"
            f" count(*) OVER (PARTITION BY {together}) AS copies, {is_there} AS is_there"
            f" FROM {_STAGE} s WHERE {there}) WHERE is_there OR copies > 1"
        )
        rows: list[tuple[int, int, int, bool]] = self._execute(query).fetchall()
        return rows

    def _same(self, names: Sequence[str], columns: Sequence[str]) -> str:
        pairs = zip(names, columns, strict=True)
        return " AND ".join(
            f"{self._changed.get(fold(name), f't.{quote(name)}')} = s.{column}"
            for name, column in pairs
        )


def as_text(column: str, declared: str) -> str:
    """Return the SQL expression for a column as `plain_texts` writes its values."""
    if declared != "DOUBLE":
        return f"to_json({column})::VARCHAR"
    # `to_json` writes some very large and very small numbers without an exponent.
    short = f"replace(replace({column}::VARCHAR, 'e+', 'e'), 'e-0', 'e-')"
    is_short = f"abs({column}) >= 1e16 OR (abs({column}) < 1e-5 AND {column} <> 0)"
    plain = f"regexp_replace(to_json({column})::VARCHAR, '[.]0$', '')"
    return f"CASE WHEN {is_short} THEN {short} ELSE {plain} END"
