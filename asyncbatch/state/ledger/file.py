"""The ledger file (SQLite) of a local run."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.paths import is_store_url
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.state.ledger import sqlite, table
from asyncbatch.state.lock import state_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.entries import Entry, Ledger, Stamp

_GENERATIONS = """
CREATE TABLE IF NOT EXISTS asyncbatch_generations (
    job TEXT NOT NULL, generation BIGINT NOT NULL, part TEXT NOT NULL, inode BIGINT NOT NULL,
    size BIGINT, mtime_ns BIGINT, PRIMARY KEY (job, generation)
)"""
_JOBS = """
CREATE TABLE IF NOT EXISTS asyncbatch_jobs (
    job TEXT PRIMARY KEY, target TEXT NOT NULL, description TEXT NOT NULL, begun_at TEXT NOT NULL
)"""


class Generation(NamedTuple):
    """An output file of a run: its number, and where it is now."""

    number: int
    path: str


class LedgerStore:
    """A ledger file. `target` is the path of its file or folder, if it has one.

    Used by one thread at a time; other processes may use the file too. Raises SinkError if the file
    cannot be written.
    """

    def __init__(self, path: str, job: str, target: str, description: str) -> None:
        self.path, self._job, self._target = path, job, target
        self._description = description
        self._connection: sqlite3.Connection

    @property
    def key(self) -> str:
        """The identity of this job and ledger, for the names of unfinished outputs."""
        told = f"{os.path.realpath(self.path)}\0{self._job}"
        return hashlib.blake2b(os.fsencode(told), digest_size=4).hexdigest()

    def open(self) -> None:
        """Make ready. Raises UsageError."""
        try:
            if folder := os.path.dirname(self.path):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path,
                timeout=sqlite.BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Entries lost in a power failure only cost repeated work.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                sqlite.create(self._connection)
                self._connection.execute(_GENERATIONS)
                self._connection.execute(_JOBS)
                self._connection.execute(
                    "INSERT OR REPLACE INTO asyncbatch_jobs VALUES (?, ?, ?, datetime('now'))",
                    [self._job, table.escape_path(self._target), self._description],
                )
        except OSError as error:
            raise UsageError(f"cannot use the ledger {self.path}: {error.strerror}") from None
        except (sqlite3.Error, SinkError) as error:
            raise UsageError(
                f"cannot use the ledger {self.path}: {error}; --ledger names another"
            ) from None

    def record(self, entries: Sequence[Entry]) -> None:
        """Write entries durably."""
        with self._transaction():
            sqlite.record(self._connection, self._job, table.escape_path(self._target), entries)

    def generations(self) -> Mapping[int, Generation]:
        """Return the outputs, finished or not, that are unchanged since they were left."""
        query = (
            "SELECT generation, part, inode, size, mtime_ns FROM asyncbatch_generations"
            " WHERE job = ?"
        )
        found: dict[int, Generation] = {}
        with self._naming():
            rows = self._connection.execute(query, [self._job]).fetchall()
        for number, part, inode, size, mtime_ns in rows:
            for path in (table.unescape_path(part), self._target):
                # Inodes are reused: so the file must have been sealed.
                may_be = size is not None or path != self._target
                if may_be and _is_unchanged(path, inode, size, mtime_ns):
                    found[number] = Generation(number, path)
        return found

    def begin(self) -> int:
        """Return the number of a new output."""
        query = (
            f"SELECT max(generation) FROM (SELECT generation FROM {table.NAME} WHERE job = ?1"  # noqa: S608 - constants
            " UNION ALL SELECT generation FROM asyncbatch_generations WHERE job = ?1)"
        )
        with self._naming():
            (last,) = self._connection.execute(query, [self._job]).fetchone()
        return (last or 0) + 1

    def unfinished_generation(self, generation: int, part: str) -> None:
        """Take note that the output is at `part`, until it is complete."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO asyncbatch_generations VALUES (?, ?, ?, ?, NULL, NULL)",
                [self._job, generation, table.escape_path(part), os.stat(part).st_ino],
            )

    def seal(self, generation: int, path: str) -> None:
        """Note that the output, which is now at `path`, is complete."""
        with self._transaction():
            self._seal(generation, path)

    def completed(self, generation: int) -> None:
        """Take note that the output is in its place; earlier ones are forgotten."""
        with self._transaction():
            self._seal(generation, self._target)
            self._forget("generation < ?", generation)

    def forget(self, generations: Sequence[int]) -> None:
        """Forget outputs and their entries."""
        with self._transaction():
            for generation in generations:
                self._forget("generation = ?", generation)

    def sizes(self) -> Mapping[int, int]:
        """Return how many entries each output has."""
        query = f"SELECT generation, count(*) FROM {table.NAME} WHERE job = ? GROUP BY 1"  # noqa: S608 - constants
        with self._naming():
            return dict(self._connection.execute(query, [self._job]).fetchall())

    def adds(self, generation: int, others: Sequence[int]) -> bool:
        """Whether an output has an entry that none of the others has."""
        beside = ", ".join(map(str, others))
        query = (
            f"SELECT 1 FROM {table.NAME} AS this WHERE job = ? AND generation = ? AND NOT EXISTS"  # noqa: S608 - numbers
            f" (SELECT 1 FROM {table.NAME} AS other WHERE other.job = this.job"
            " AND other.path = this.path AND other.size = this.size"
            f" AND other.mtime_ns = this.mtime_ns AND other.generation IN ({beside})) LIMIT 1"
        )
        with self._naming():
            return self._connection.execute(query, [self._job, generation]).fetchone() is not None

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _seal(self, generation: int, path: str) -> None:
        status = os.stat(path)
        self._connection.execute(
            "UPDATE asyncbatch_generations SET size = ?, mtime_ns = ?"
            " WHERE job = ? AND generation = ?",
            [status.st_size, status.st_mtime_ns, self._job, generation],
        )

    def _forget(self, condition: str, generation: int) -> None:
        for name in (table.NAME, "asyncbatch_generations"):
            self._connection.execute(
                f"DELETE FROM {name} WHERE job = ? AND {condition}",  # noqa: S608 - constants
                [self._job, generation],
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._naming():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say of an error of SQLite that it is about the ledger."""
        try:
            yield
        except sqlite3.Error as error:
            raise SinkError(f"cannot write the ledger {self.path}: {error}", self.path) from None


def _is_unchanged(path: str, inode: int, size: int | None, mtime_ns: int | None) -> bool:
    """Whether the file at `path` is the one that was left, unchanged since."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    unchanged = size is None or (status.st_size, status.st_mtime_ns) == (size, mtime_ns)
    return status.st_ino == inode and unchanged


class SharedLedger:
    """A ledger for one thread at a time; once it is closed it has no entries.

    When a run is stopped, a thread may still be looking an input up. It cannot be stopped, and its
    result is ignored.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger: Ledger | None = ledger
        self._turn = threading.Lock()

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        with self._turn:
            return self._ledger.lookup(paths) if self._ledger else {}

    def find(self, stamp: Stamp) -> Sequence[str]:
        with self._turn:
            return self._ledger.find(stamp) if self._ledger else ()

    def close(self) -> None:
        with self._turn:
            ledger, self._ledger = self._ledger, None
            if ledger is not None:
                ledger.close()


_NAME_LENGTH = 40


def default_path(target: str | None, fingerprint: str, root: str | None) -> str:
    """Return the path of the ledger of a target, or of a check in the current folder.

    With `root` the path does not depend on the current folder. Raises UsageError without a state
    folder.
    """
    if target is not None:
        key = target if is_store_url(target) else os.path.realpath(target)
        name = os.path.basename(key)
    else:
        key = f"{fingerprint}\0{os.getcwd() if root is None else os.path.realpath(root)}"
        name = "checks"
    digest = hashlib.blake2b(os.fsencode(key), digest_size=6).hexdigest()
    tidy = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_NAME_LENGTH]
    return os.path.join(state_folder(), f"{tidy}-{digest}.ledger")
