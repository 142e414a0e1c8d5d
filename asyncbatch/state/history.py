"""The history of runs: a small SQLite file in the state folder, for its owner only."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import astuple

from asyncbatch.core.records import display_path
from asyncbatch.errors import UsageError
from asyncbatch.state.lock import state_folder
from asyncbatch.storage.atomic import PRIVATE_MODE, make_private_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Older runs are forgotten when a new one is added: the file stays below some 20 MB.
MAX_RUNS = 1000
MAX_AGE_DAYS = 365
# The files that failed: rows, one for each file and kind of failure.
MAX_FAILED_FILES = 1000  # of one run, the first ones
MAX_FAILED_FILES_IN_ALL = 100_000  # of the latest runs
BUSY_SECONDS = 5.0  # wait for another run that is writing
_VERSION = 1  # of the tables, as `PRAGMA user_version`
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # of times in UTC: in this form, texts sort as times


class PastRun(Struct, frozen=True, kw_only=True):
    """A run that has ended. Its texts contain no secrets."""

    run: int = 0  # its number, which is given when it is stored
    started_at: str  # UTC
    command: str
    job: str  # a short hash; runs of the same job have the same
    name: str  # of the job, for people: its inputs and its target
    status: str  # the word of the report
    exit_code: int
    error: str | None  # the reason why the run could not begin, or not go on
    elapsed_s: float
    files: int | None = None  # None of a stream, as the next four
    succeeded: int | None = None
    partial: int | None = None
    failed: int | None = None
    skipped: int | None = None
    records: int  # records or events that were read
    rejected: int
    written: int  # records, or windows of a stream
    failures: int  # failed files, rejected records, and losses
    run_id: str | None = None  # its id in its log and its reports; None of earlier versions


class FailedFile(Struct, frozen=True):
    """The failures of one kind in one file of a run."""

    file: str
    kind: str
    count: int


_FIELDS = PastRun.__struct_fields__
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, started_at TEXT NOT NULL, command TEXT NOT NULL,
    job TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, exit_code INTEGER NOT NULL,
    error TEXT, elapsed_s REAL NOT NULL, files INTEGER, succeeded INTEGER, partial INTEGER,
    failed INTEGER, skipped INTEGER, records INTEGER NOT NULL, rejected INTEGER NOT NULL,
    written INTEGER NOT NULL, failures INTEGER NOT NULL, run_id TEXT
)""",
    "CREATE INDEX IF NOT EXISTS runs_of_job ON runs (job, run)",
    """CREATE TABLE IF NOT EXISTS failed_files (
    run INTEGER NOT NULL, place INTEGER NOT NULL, file TEXT NOT NULL, kind TEXT NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (run, place)
) WITHOUT ROWID""",
    f"PRAGMA user_version = {_VERSION}",
)
_INSERT = f"INSERT INTO runs ({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608 - constants
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM runs"  # noqa: S608 - constants


def history_path() -> str:
    """Return the path of the history. Raises UsageError without a home folder."""
    return os.path.join(state_folder(), "history.sqlite")


def started_text(moment: datetime) -> str:
    """Return a time as the history keeps it."""
    return moment.astimezone(UTC).strftime(_TIME_FORMAT)


class History:
    """The past runs in the file at `path`, which need not exist.

    Each method opens the file for itself: several runs may end at the same time. Methods raise
    UsageError if the file cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def add(
        self, run: PastRun, failed: Sequence[FailedFile], *, wait_s: float = BUSY_SECONDS
    ) -> None:
        """Add a run, and forget the oldest ones. Other writers are waited for `wait_s` seconds."""
        with self._using():
            if folder := os.path.dirname(self._path):
                make_private_folders(folder)
            with suppress(FileExistsError):  # SQLite's own files get the mode of this one
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self._path, flags, PRIVATE_MODE))
            connected = sqlite3.connect(self._path, timeout=wait_s, isolation_level=None)
            with closing(connected) as connection:
                # One wait for the disk in place of four: 2 ms, not 20. A power failure may lose the
                # last lines, which is no harm.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                self._check_version(connection)
                for statement in _SCHEMA:
                    connection.execute(statement)
                if not _has_run_ids(connection):
                    connection.execute("ALTER TABLE runs ADD COLUMN run_id TEXT")
                values = [None, *astuple(run)[1:]]  # the database gives the number
                number = connection.execute(_INSERT, values).lastrowid
                connection.executemany(
                    "INSERT INTO failed_files VALUES (?, ?, ?, ?, ?)",
                    (
                        (number, place, *astuple(one))
                        for place, one in enumerate(failed[:MAX_FAILED_FILES])
                    ),
                )
                _prune(connection)
                connection.execute("COMMIT")

    def runs(
        self, limit: float, *, job: str | None = None, until: int | None = None
    ) -> list[PastRun]:
        """Return the latest runs, the latest one last.

        Only those of a job, and only up to the number `until`, if these are given.
        """
        conditions, values = ["TRUE"], list[object]()
        for condition, value in (("job = ?", job), ("run <= ?", until)):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        where = " AND ".join(conditions)
        most = int(min(limit, MAX_RUNS * 10))  # other versions may keep more
        query = f"{_SELECT} WHERE {where} ORDER BY run DESC LIMIT ?"
        rows = self._fetch(query, *values, most)
        return [_past_run(row) for row in reversed(rows)]

    def failed_files(self, run: int) -> list[FailedFile]:
        """Return the files of a run that failed, as far as they are kept."""
        query = "SELECT file, kind, count FROM failed_files WHERE run = ? ORDER BY place"
        return [FailedFile(*row) for row in self._fetch(query, run)]

    def _fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if not os.path.exists(self._path):
            return []
        with self._using():
            connected = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            with closing(connected) as connection:
                connection.execute("PRAGMA query_only = ON")
                if not self._check_version(connection):
                    return []  # a run is just creating the tables
                if not _has_run_ids(connection):
                    query = query.replace(" run_id FROM", " NULL FROM")
                return connection.execute(query, values).fetchall()

    def _check_version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the tables; 0 without tables."""
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        if version > _VERSION:
            raise UsageError(
                f"the history {display_path(self._path)} is of a later version of asyncbatch"
            )
        return int(version)

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
        except sqlite3.Error as error:
            reason = str(error)
        else:
            return
        raise UsageError(f"cannot use the history {display_path(self._path)}: {reason}")


def _has_run_ids(connection: sqlite3.Connection) -> bool:
    """Whether the runs have ids. An earlier version made the table without."""
    return any(name == "run_id" for _, name, *_ in connection.execute("PRAGMA table_info(runs)"))


def _prune(connection: sqlite3.Connection) -> None:
    """Forget the runs that are too old or too many, and their failed files."""
    oldest = started_text(datetime.now(UTC) - timedelta(days=MAX_AGE_DAYS))
    last_run = "(SELECT run FROM runs ORDER BY run DESC LIMIT 1 OFFSET ?)"
    old = connection.execute(
        f"DELETE FROM runs WHERE started_at < ? OR run <= {last_run}",  # noqa: S608 - a constant
        [oldest, MAX_RUNS],
    )
    if old.rowcount:
        connection.execute("DELETE FROM failed_files WHERE run NOT IN (SELECT run FROM runs)")
    connection.execute(
        "DELETE FROM failed_files WHERE run <="
        " (SELECT run FROM failed_files ORDER BY run DESC LIMIT 1 OFFSET ?)",
        [MAX_FAILED_FILES_IN_ALL],
    )


def _past_run(row: Sequence[Any]) -> PastRun:
    return PastRun(**dict(zip(_FIELDS, row, strict=True)))
