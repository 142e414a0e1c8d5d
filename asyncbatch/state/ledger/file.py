"""The ledger file of a run into files or folders, in SQLite."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.core.paths import is_store_url
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.state.ledger import sqlite, table
from asyncbatch.state.lock import state_folder
from asyncbatch.storage.atomic import PRIVATE_MODE, make_private_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, Stamp

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
    """An output file of a run."""

    number: int
    path: str  # its present path, finished or not


class LedgerStore:
    """A ledger file for one job.

    Call `open` first. Methods raise SinkError if SQLite fails. `target` is the path of the output
    file or folder, if there is one. For one thread at a time. Other processes may use the same
    file.
    """

    path: str

    def __init__(self, path: str, job: str, target: str, description: str) -> None:
        self.path, self._job, self._target = path, job, target
        self._description = description
        self._connection: sqlite3.Connection

    @property
    def key(self) -> str:
        """The identity of this job and ledger, for the names of unfinished outputs."""
        text = f"{os.path.realpath(self.path)}\0{self._job}"
        return hashlib.blake2b(os.fsencode(text), digest_size=4).hexdigest()

    def open(self) -> None:
        """Open the file, and create its tables if needed. Raises UsageError."""
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            # SQLite takes a device for an empty database, and writes a journal beside it.
            raise UsageError(f"cannot use the ledger {self.path}: it is not a regular file")
        try:
            if folder := os.path.dirname(self.path):
                make_private_folders(folder)
            with suppress(FileExistsError):  # SQLite's own files get the mode of this one
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self.path, flags, PRIVATE_MODE))
            self._connection = sqlite.connect(self.path)
            self._table = sqlite.SqliteLedgerTable(self._connection)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A power failure may lose the last entries. This only repeats work.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                self._table.create()
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
                f"cannot use the ledger {self.path}: {error}; name another file with --ledger"
            ) from None

    def record(self, entries: Sequence[Entry]) -> None:
        """Write and commit entries."""
        with self._transaction():
            self._table.record(self._job, table.escape_path(self._target), entries)

    def outputs(self) -> list[tuple[str, list[Extent]]]:
        """Return the escaped path of each input with outputs in the target, with their states.

        These are the outputs of all jobs with this target.
        """
        query = (
            f"SELECT path, extent_at, extent_length FROM {table.NAME}"  # noqa: S608 - constants
            " WHERE target = ? AND extent_at NOTNULL"
        )
        found: dict[str, list[Extent]] = {}
        with self._naming():
            for path, at, length in self._connection.execute(query, [self._escaped_target]):
                found.setdefault(path, []).append(Extent(at, length))
        return list(found.items())

    def forget_files(self, paths: Sequence[str]) -> None:
        """Delete the entries of all jobs with this target for these inputs."""
        with self._transaction():
            self._table.forget_files(self._escaped_target, paths)

    @property
    def _escaped_target(self) -> str:
        return table.escape_path(self._target)

    def generations(self) -> Mapping[int, Generation]:
        """Return the outputs, finished or not, that no other program has changed since."""
        query = (
            "SELECT generation, part, inode, size, mtime_ns FROM asyncbatch_generations"
            " WHERE job = ?"
        )
        found: dict[int, Generation] = {}
        with self._naming():
            rows = self._connection.execute(query, [self._job]).fetchall()
        for number, part, inode, size, mtime_ns in rows:
            for path in (table.unescape_path(part), self._target):
                # The system reuses inodes, so a file at the target counts only if it was sealed.
                can_match = size is not None or path != self._target
                if can_match and _is_unchanged(path, inode, size, mtime_ns):
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
        """Record a new output, which is at `part` until it is complete."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO asyncbatch_generations VALUES (?, ?, ?, ?, NULL, NULL)",
                [self._job, generation, table.escape_path(part), os.stat(part).st_ino],
            )

    def seal(self, generation: int, path: str) -> None:
        """Record that the output, which is now at `path`, is complete."""
        with self._transaction():
            self._seal(generation, path)

    def completed(self, generation: int) -> None:
        """Record that the output is at the target path, and forget earlier outputs."""
        with self._transaction():
            self._seal(generation, self._target)
            self._forget("generation < ?", generation)

    def forget(self, generations: Sequence[int]) -> None:
        """Forget outputs and their entries."""
        with self._transaction():
            for generation in generations:
                self._forget("generation = ?", generation)

    def sizes(self) -> Mapping[int, int]:
        """Return the number of entries of each output."""
        query = f"SELECT generation, count(*) FROM {table.NAME} WHERE job = ? GROUP BY 1"  # noqa: S608 - constants
        with self._naming():
            return dict(self._connection.execute(query, [self._job]).fetchall())

    def adds(self, generation: int, others: Sequence[int]) -> bool:
        """Whether an output has an entry that none of the `others` has."""
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
        """Close the file."""
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
        """Translate an error of SQLite into a SinkError that names the ledger."""
        try:
            yield
        except sqlite3.Error as error:
            raise SinkError(f"cannot write the ledger {self.path}: {error}", self.path) from None


def _is_unchanged(path: str, inode: int, size: int | None, mtime_ns: int | None) -> bool:
    """Whether the file at `path` has this inode and, if known, this size and time."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    unchanged = size is None or (status.st_size, status.st_mtime_ns) == (size, mtime_ns)
    return status.st_ino == inode and unchanged


def has_written(ledger: str, path: str) -> bool:
    """Whether a ledger file records that `path` is an output, unchanged since it was written."""
    if not os.path.isfile(ledger):
        return False
    try:
        status = os.stat(path)
        with closing(sqlite.connect(ledger)) as connection:
            query = (
                "SELECT 1 FROM asyncbatch_generations WHERE inode = ? AND size = ? AND mtime_ns = ?"
            )
            found = connection.execute(query, (status.st_ino, status.st_size, status.st_mtime_ns))
            return found.fetchone() is not None
    except (OSError, sqlite3.Error):  # the run itself reports an unusable ledger
        return False


def has_read(ledger: str, inputs: Sequence[str]) -> bool:
    """Whether a ledger file has an entry of one of these inputs, or of a file in one of them."""
    try:
        with closing(sqlite.connect(ledger)) as connection:
            if not sqlite.SqliteLedgerTable(connection).exists():
                return False
            query = (
                f"SELECT 1 FROM {table.NAME} WHERE path = ?1"  # noqa: S608 - constants
                " OR substr(path, 1, length(?1) + 1) = ?1 || '/' LIMIT 1"
            )
            names = map(table.escape_path, inputs)
            return any(connection.execute(query, [name]).fetchone() for name in names)
    except (OSError, sqlite3.Error):  # the run itself reports an unusable ledger
        return False


class SharedLedger:
    """A ledger that several threads may use; after `close` it has no entries.

    When a run stops, a thread may still look up an input. The thread cannot be stopped, and its
    result is ignored.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger: Ledger | None = ledger
        self._turn = threading.Lock()

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        with self._turn:
            return self._ledger.lookup(paths) if self._ledger else {}

    def find(self, stamps: Sequence[Stamp]) -> Sequence[tuple[str, Stamp]]:
        with self._turn:
            return self._ledger.find(stamps) if self._ledger else ()

    def close(self) -> None:
        with self._turn:
            ledger, self._ledger = self._ledger, None
            if ledger is not None:
                ledger.close()


_NAME_LENGTH = 40  # characters of the target's name in the name of the ledger file


def default_path(target: str | None, fingerprint: str, root: str | None) -> str:
    """Return the default path of the ledger of a target, or of a check without target.

    The path for a check depends on `root`, by default the current folder. Raises UsageError without
    a state folder.
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
