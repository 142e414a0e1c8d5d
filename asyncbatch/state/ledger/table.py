"""The ledger table: its schema, its rows, and its statements in any database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asyncbatch.core.ledger_entries import Entry, Extent, Stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncbatch.core.ledger_entries import LedgerJob

NAME = "asyncbatch_ledger"  # the name of the table in any database

# Add new columns at the end, and let them be null: they are added to tables of earlier versions.
_COLUMNS = {
    "job": "TEXT NOT NULL",
    "target": "TEXT NOT NULL",
    "generation": "BIGINT NOT NULL",
    "path": "TEXT NOT NULL",
    "size": "BIGINT NOT NULL",
    "mtime_ns": "BIGINT NOT NULL",
    "digest": "TEXT",
    "outcome": "TEXT NOT NULL",
    "records_read": "BIGINT NOT NULL",
    "records_dropped": "BIGINT NOT NULL",
    "records_rejected": "BIGINT NOT NULL",
    "records_written": "BIGINT NOT NULL",
    "done_at": "TEXT NOT NULL",
    "letters": "BLOB NOT NULL",
    "extent_at": "BIGINT",
    "extent_length": "BIGINT",
    "extent_skip": "BIGINT",
    "extent_take": "BIGINT",
    "reached_byte": "BIGINT",
    "reached_record": "BIGINT",
    "reached_line": "BIGINT",
    "reached_column": "BIGINT",
    "bookmark": "TEXT",
    "put_away": "BIGINT",
}
COLUMNS = tuple(_COLUMNS)
ALL = ", ".join(COLUMNS)
ENTRY_COLUMNS = COLUMNS[2:]  # those of `entry_of`, in its order
STAMP_INDEXES = (
    f"CREATE INDEX IF NOT EXISTS {NAME}_stamp ON {NAME} (size, mtime_ns)",
    f"CREATE INDEX IF NOT EXISTS {NAME}_digest ON {NAME} (digest) WHERE digest IS NOT NULL",
)


def row_of(job: str, target: str, entry: Entry) -> tuple[Any, ...]:
    """Return an entry as a row of the table, with its path escaped."""
    extent = entry.extent
    place = (extent.at, extent.length, extent.skip, extent.take) if extent else (None,) * 4
    return (
        job, target, entry.generation, escape_path(entry.path), *entry.stamp, entry.outcome,
        entry.read, entry.dropped, entry.rejected, entry.written, entry.done_at, entry.letters,
        *place, *(entry.reached or (None,) * 4), entry.bookmark, int(entry.is_put_away),
    )  # fmt: skip


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry from a row of the columns `ENTRY_COLUMNS`."""
    generation, path, size, mtime_ns, digest, outcome = row[:6]
    read, dropped, rejected, written, done_at, letters, at, length, skip, take = row[6:16]
    return Entry(
        unescape_path(path), Stamp(size, mtime_ns, digest), outcome, read, dropped, rejected,
        written, done_at, bytes(letters), generation,
        None if at is None else Extent(at, length, skip, take),
        None if row[16] is None else tuple(row[16:20]), row[20], bool(row[21]),
    )  # fmt: skip


def escape_path(path: str) -> str:
    """Return a path as text for any database. Different paths give different texts."""
    if path.isascii() and "\\" not in path:
        return path
    escaped = path.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    return escaped.decode("utf-8", "backslashreplace")


def unescape_path(text: str) -> str:
    """Return the path from its escaped text; the reverse of `escape_path`."""
    if "\\" not in text:
        return text
    parts = text.split("\\\\")
    return "\\".join(_unescape(part) for part in parts)


def _unescape(text: str) -> str:
    first, *escapes = text.split("\\x")
    raw = first.encode()
    for escape in escapes:
        raw += bytes.fromhex(escape[:2]) + escape[2:].encode()
    return raw.decode("utf-8", "surrogateescape")


# Runs a statement with values, of which ?1 is the first; returns the rows.
Execute = Callable[[str, Sequence[Any]], Sequence[Any]]


class LedgerTable:
    """The ledger table of a database, which may not exist yet.

    A subclass gives the dialect of the database. Methods raise the errors of the database.
    """

    columns_query: str  # for the names of the columns of table ?1; no rows without this table
    _blob = "BLOB"  # the type of bytes
    _is_listed = "path IN (SELECT unnest(?2))"  # the condition that ?2 has the path
    _is_known_digest = "digest IN (SELECT unnest(?3::text[]))"  # that ?3 has the digest
    _indexes: Sequence[str] = ()

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def exists(self) -> bool:
        """Whether the database has a ledger."""
        return bool(self._execute(self.columns_query, [NAME]))

    def create(self) -> None:
        """Create the table, or upgrade that of an earlier version."""
        if self._missing_columns():
            self._lock()
            columns = ", ".join(map(" ".join, self._columns().items()))
            self._execute(f"CREATE TABLE IF NOT EXISTS {NAME} ({columns})", ())
            for statement in self._indexes:
                self._execute(statement, ())
            for name in self._missing_columns():
                self._execute(f"ALTER TABLE {NAME} ADD COLUMN {name} {self._columns()[name]}", ())

    def upgrade(self) -> None:
        """Add the missing columns to a table of an earlier version, if there is one."""
        if self.exists():
            self.create()

    def record(self, job: str, target: str, entries: Sequence[Entry]) -> None:
        """Write entries, which replace earlier ones of their paths."""
        self._execute(
            f"DELETE FROM {NAME} WHERE job = ?1 AND {self._is_listed} AND generation = ?3",  # noqa: S608 - constants
            [job, self._listed([entry.path for entry in entries]), entries[0].generation],
        )
        columns = zip(*(row_of(job, target, entry) for entry in entries), strict=True)
        types = (declared.removesuffix(" NOT NULL") for declared in self._columns().values())
        # Row by row, this would take a hundred times as long.
        lists = ", ".join(f"unnest(?{place}::{kind}[])" for place, kind in enumerate(types, 1))
        self._execute(f"INSERT INTO {NAME} ({ALL}) SELECT {lists}", list(map(list, columns)))

    def lookup(self, job: str, paths: Sequence[str], *, least: int) -> Mapping[str, Entry]:
        """Return the newest entries of inputs, from generation `least` on, by path."""
        query = (
            f"SELECT {', '.join(ENTRY_COLUMNS)} FROM {NAME} WHERE job = ?1 AND {self._is_listed}"  # noqa: S608 - constants
            " AND generation >= ?3 ORDER BY generation"
        )
        rows = self._execute(query, [job, self._listed(paths), least])
        return {entry.path: entry for entry in map(entry_of, rows)}

    def find(self, job: str, stamps: Sequence[Stamp], *, least: int) -> Sequence[tuple[str, Stamp]]:
        """Return the inputs that had one of these stamps, and that added rows, with their stamps.

        Those that a run has put away are left out: these were not renamed. One query for many
        stamps: a database without an index reads all entries for each query.
        """
        conditions = [self._stamp_condition(stamps)]
        if digests := [stamp.digest for stamp in stamps if stamp.digest is not None]:
            conditions.append((self._is_known_digest, [self._list(digests)]))
        found: list[Sequence[Any]] = []
        for condition, values in conditions:
            query = (
                # The cast keeps SQLite from the index of jobs, whose entries it would all read.
                f"SELECT path, size, mtime_ns, digest FROM {NAME} WHERE CAST(job AS TEXT) = ?1"  # noqa: S608 - constants
                " AND generation >= ?2 AND records_written > 0 AND coalesce(put_away, 0) = 0"
                f" AND {condition}"
            )
            found += self._execute(query, [job, least, *values])
        return [(unescape_path(path), Stamp(*stamp)) for path, *stamp in found]

    def forget(self, target: str, *, generation: int) -> None:
        """Delete the entries of all jobs for `target` and this generation, if there is a ledger."""
        if self.exists():
            self._execute(
                f"DELETE FROM {NAME} WHERE target = ?1 AND generation = ?2",  # noqa: S608 - constants
                [target, generation],
            )

    def lines(self, target: str) -> Sequence[tuple[str, int, int, str]]:
        """Return path, rows, rejected records and job of the entries of `target`."""
        fields = "path, records_written, records_rejected, job"
        return self._execute(f"SELECT {fields} FROM {NAME} WHERE target = ?1", [target])  # noqa: S608 - constants

    def put_away(self, job: str, paths: Sequence[str]) -> None:
        """Note that the files of these entries were moved or deleted by the run."""
        self._execute(
            f"UPDATE {NAME} SET put_away = 1 WHERE job = ?1 AND {self._is_listed}",  # noqa: S608 - constants
            [job, self._listed(paths)],
        )

    def forget_files(self, target: str, paths: Sequence[str]) -> None:
        """Delete the entries of all jobs for these inputs of `target`."""
        self._execute(
            f"DELETE FROM {NAME} WHERE target = ?1 AND {self._is_listed}",  # noqa: S608 - constants
            [target, self._listed(paths)],
        )

    def forget_other_jobs(self, job: str, target: str) -> None:
        """Delete the entries of all other jobs for `target`."""
        self._execute(f"DELETE FROM {NAME} WHERE target = ?1 AND job <> ?2", [target, job])  # noqa: S608 - constants

    def can_resume(self, job: LedgerJob, target: str) -> bool:
        """Whether this job made the replacement of `target`, from unchanged inputs."""
        query = (
            f"SELECT job, path, size, mtime_ns, digest FROM {NAME}"  # noqa: S608 - constants
            " WHERE target = ?1 AND generation > 0 AND (records_written > 0 OR job <> ?2)"
        )
        rows = self._execute(query, [target, job.fingerprint]) if self.exists() else ()
        return bool(rows) and all(
            owner == job.fingerprint and job.is_current(unescape_path(path), Stamp(*stamp))
            for owner, path, *stamp in rows
        )

    def promote(self, job: str, target: str) -> None:
        """Replace the entries of `target` by those of the job's finished replacement."""
        if self.exists():
            self._execute(
                f"DELETE FROM {NAME} WHERE target = ?1 AND NOT (job = ?2 AND generation > 0)",  # noqa: S608 - constants
                [target, job],
            )
            self._execute(f"UPDATE {NAME} SET generation = 0 WHERE job = ?1", [job])  # noqa: S608 - constants

    def _lock(self) -> None:
        """Wait for other sessions that create the table."""

    def _listed(self, paths: Sequence[str]) -> Any:
        """Return the value of ?2 in `_is_listed`."""
        return self._list(list(map(escape_path, paths)))

    def _list(self, values: Sequence[Any]) -> Any:
        """Return a list as one value of a statement."""
        return values

    def _stamp_condition(self, stamps: Sequence[Stamp]) -> tuple[str, list[Any]]:
        """Return the condition that size and time are those of a stamp, with its values from ?3."""
        sizes, times = [stamp.size for stamp in stamps], [stamp.mtime_ns for stamp in stamps]
        pairs = "SELECT unnest(?3::bigint[]), unnest(?4::bigint[])"
        return f"(size, mtime_ns) IN ({pairs})", [sizes, times]

    def _columns(self) -> dict[str, str]:
        return {name: kind.replace("BLOB", self._blob) for name, kind in _COLUMNS.items()}

    def _missing_columns(self) -> list[str]:
        present = {name for (name,) in self._execute(self.columns_query, [NAME])}
        return [name for name in COLUMNS if name not in present]


class TableLedger:
    """The entries of one job in a ledger table, for one thread at a time.

    Only generations from `least` on count. `close` releases the connection of the table.
    """

    def __init__(
        self, table: LedgerTable, job: str, close: Callable[[], None], *, least: int = 0
    ) -> None:
        self._table, self._job, self._least = table, job, least
        self.close, self._is_there = close, False

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        return self._table.lookup(self._job, paths, least=self._least) if self._exists() else {}

    def find(self, stamps: Sequence[Stamp]) -> Sequence[tuple[str, Stamp]]:
        return self._table.find(self._job, stamps, least=self._least) if self._exists() else ()

    def _exists(self) -> bool:
        self._is_there = self._is_there or self._table.exists()
        return self._is_there
