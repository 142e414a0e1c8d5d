"""The mirror of a run: which files are gone, and whose rows a part replaces."""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from asyncbatch.core.origin import FILE_COLUMN
from asyncbatch.core.paths import is_archive_name, is_object_url
from asyncbatch.core.records import display_path
from asyncbatch.core.units import format_count
from asyncbatch.errors import UsageError
from asyncbatch.sinks.columns.block import ColumnBlock
from asyncbatch.sinks.databases.mirror import DEFAULT_MAX_DELETE, GoneFiles, MaxDelete
from asyncbatch.sinks.folder import remove_output
from asyncbatch.state.ledger.table import escape_path, unescape_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.config.job import FileSource
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.pipeline.resume.session import FolderLedgerSession, LedgerSession
    from asyncbatch.sinks.databases.base import DatabaseSink
    from asyncbatch.sinks.databases.mirror import LedgerLine
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.identity import InputNaming
    from asyncbatch.sources.live.watched_search import WatchedSearch

_NAMES = 10_000  # that are added to a table at a time
_SETS = ("seen", "known", "entered", "loaded")


class FileSets:
    """Sets of names of files, in a temporary database: there may be millions.

    `seen` has the files of the run, `known` those with rows in the target, `entered` those of the
    ledger with the number of their rows, `loaded` those that the run has loaded with their state.
    Any thread may use it.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # The content is not needed after a crash, so no journal and no fsync.
        for statement in ("journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {statement}")
        for name in _SETS:
            self._database.execute(
                f"CREATE TABLE {name} (name TEXT PRIMARY KEY, value) WITHOUT ROWID"
            )
        self._database.execute("BEGIN")

    def fill(self, name: str, names: Iterable[tuple[str, int | str]]) -> None:
        """Let a set have exactly these names, each with a value."""
        self._database.execute(f"DELETE FROM {name}")  # noqa: S608 - a constant
        self.add(name, names)

    def add(self, name: str, names: Iterable[tuple[str, int | str]]) -> None:
        """Add names to a set, each with a value."""
        statement = f"INSERT OR REPLACE INTO {name} VALUES (?, ?)"  # noqa: S608 - a constant
        self._database.executemany(statement, names)

    def has(self, name: str, file: str) -> bool:
        """Whether a set has a file."""
        return self.value(name, file) is not None

    def value(self, name: str, file: str) -> int | str | None:
        """Return the value of a file in a set; None if the set has no such file."""
        query = f"SELECT value FROM {name} WHERE name = ?"  # noqa: S608 - a constant
        found = self._database.execute(query, (file,)).fetchone()
        return None if found is None else found[0]

    def count(self, name: str) -> int:
        """Return the number of files in a set."""
        ((count,),) = self._database.execute(f"SELECT count(*) FROM {name}")  # noqa: S608 - a constant
        return int(count)

    def missing(self, name: str, other: str, condition: str = "1") -> list[str]:
        """Return the files of a set that are not in another one, and meet a condition."""
        query = (
            f"SELECT name FROM {name} AS this WHERE {condition} AND NOT EXISTS"  # noqa: S608 - constants
            f" (SELECT 1 FROM {other} WHERE name = this.name) ORDER BY name"
        )
        return [file for (file,) in self._database.execute(query)]

    def close(self) -> None:
        """Remove the temporary database."""
        self._database.close()


class PresentFiles:
    """The files of a run, found by a search of their own before anything is written.

    Call `look` first, and again to look again.
    """

    def __init__(self, target: Target, source: FileSource) -> None:
        self.sets: FileSets = FileSets()
        self._target, self._source = target, source
        self._limit = MaxDelete.parse(target.max_delete or DEFAULT_MAX_DELETE)

    @property
    def naming(self) -> InputNaming:
        """The identities of the files."""
        return self._source.naming

    def look(self, launch: Launch) -> None:
        """Find the files. Blocks the calling thread. Raises UsageError."""
        search = launch.searches[0]
        paths: Iterable[str] = self._source.inputs.find()
        if search.is_exhausted and len(search.opening) == search.found_count:
            paths = search.opening  # the search of the run has found all
        leaves_out = search.leaves_out
        names = (
            (escape_path(self.naming.name(path)), 0)
            for path in paths
            if leaves_out is None or not leaves_out(path)
        )
        self.sets.fill("seen", ())
        while chunk := list(islice(names, _NAMES)):
            self.sets.add("seen", chunk)

    def find_gone(self, files: Iterable[str], lines: Iterable[LedgerLine]) -> GoneFiles:
        """Return the gone ones of the files in a target. Raises UsageError if they are too many.

        The entry of a file that should have rows, and has none, ends too: it will be read again.
        """
        sets = self.sets
        sets.fill("known", ((file, 0) for file in files))
        rejected: list[str] = []
        sets.fill("entered", _entered(lines, rejected))
        gone = list(filter(self._is_gone, sets.missing("known", "seen")))
        lost = sets.missing("entered", "known", "value > 0")
        if self._target.on_delete == "keep":
            return GoneFiles((), lost)
        self._check_limit(gone, sets.count("known"))
        entries = filter(self._is_gone, sets.missing("entered", "seen"))
        return GoneFiles(gone, sorted({*lost, *entries}), rejected if self._target.key else ())

    def _is_gone(self, name: str) -> bool:
        """Whether a file that was not found is gone.

        Nothing is known about the files of a folder, or an archive, that cannot be read: a search
        yields the folder itself then.
        """
        above = unescape_path(name)
        while (above := os.path.dirname(above)) not in ("", "/", "//"):
            for found in (above, f"{above}/"):
                if self.sets.has("seen", escape_path(found)):
                    return not self._is_unreadable(found)
        return not self.sets.has("seen", ".")

    def _is_unreadable(self, name: str) -> bool:
        """Whether a name that was found is that of a folder, and not of a file in its place."""
        path = self.naming.path(name) or name
        return is_object_url(path) or is_archive_name(path) or not os.path.isfile(path)

    def _check_limit(self, gone: Sequence[str], known: int) -> None:
        if gone and self._limit.is_exceeded(len(gone), known):
            first = ", ".join(display_path(unescape_path(name)) for name in gone[:3])
            more = "" if len(gone) <= 3 else ", …"
            raise UsageError(
                f"--mode mirror stops before it changes {self._target.name}:"
                f" {format_count(len(gone), 'file')} of the {known:,} in it"
                f" {'is' if len(gone) == 1 else 'are'} gone ({first}{more}), and --max-delete"
                f" allows {self._limit}; if they were deleted on purpose, run once with"
                f" --max-delete {len(gone)}"
            )


class Mirror(ABC):
    """Keeps a target equal to the files of a run.

    Owned by the delivery. Call `prune` before the first load, and in a run that watches folders
    whenever files may be gone.
    """

    def __init__(
        self, target: Target, source: FileSource, session: LedgerSession, *, is_watching: bool
    ) -> None:
        self._target, self._session, self._is_watching = target, session, is_watching
        self._present = PresentFiles(target, source)

    def prune(self, launch: Launch) -> tuple[int, str | None]:
        """End the rows or outputs of files that are gone; return their number, and a note.

        Raises UsageError, before anything is changed, if too many files are gone.
        """
        self._present.look(launch)
        gone, count, note = self._prune()
        if self._is_watching:
            search, naming = cast("WatchedSearch", launch.searches[0]), self._present.naming
            again = map(unescape_path, (*gone.files, *gone.entries, *gone.rejected))
            search.note_gone(path for name in again if (path := naming.path(name)) is not None)
        return count, note

    @abstractmethod
    def _prune(self) -> tuple[GoneFiles, int, str | None]:
        """Do the same; return the files, the number of rows or outputs, and a note."""

    def close(self) -> None:
        """Remove temporary files."""
        self._present.sets.close()


class TableMirror(Mirror):
    """The mirror of a table, file by file.

    A loader asks it, for each part, for the files of its rows, and for those whose earlier rows it
    replaces.
    """

    def __init__(self, sink: DatabaseSink, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sink, self._journal = sink, self._session.journal
        self._unfinished: set[int] = set()  # the numbers of files whose first part has come
        self._has_rows = True  # whether the table may have rows of earlier runs

    def files(self, batch_part: BatchPart) -> list[str]:
        """Return the name of each file of a part; of an unfinished file too."""
        name = self._present.naming.name
        places = range(len(batch_part.part) or 1)
        return [escape_path(name(batch_part.path(place))) for place in places]

    def replaced(self, batch_part: BatchPart, files: Sequence[str]) -> Iterator[str]:
        """Yield the files of a part whose earlier rows end before its rows are loaded.

        These are not the files that could not be read: their rows stay.
        """
        part = batch_part.part
        for place, file in enumerate(files):
            number = part.start + place
            is_first = number not in self._unfinished
            if len(part):
                self._unfinished.discard(number)
            else:
                self._unfinished.add(number)
            failure = part.errors.get(place)
            is_unread = failure is not None and failure.record is None
            if not is_first or is_unread or place in part.skipped or not self._has_rows:
                continue
            mark = self._session.mark_of(batch_part.path(place))
            self._present.sets.add("loaded", [(file, mark)])
            if self._journal.unfinished_entry(batch_part) is None:
                yield file

    def _prune(self) -> tuple[GoneFiles, int, str | None]:
        found: list[GoneFiles] = []

        def find_gone(files: Iterable[str], lines: Iterable[LedgerLine]) -> GoneFiles:
            found.append(self._present.find_gone(files, lines))
            return found[-1]

        pruned = self._sink.prune(find_gone)
        self._has_rows = self._is_watching or pruned.has_rows
        self._sink.is_stale = self._is_stale if self._has_rows else None
        if not pruned.rows:
            return found[-1], 0, None
        files = format_count(len(found[-1].files), "file")
        verb = "marked as deleted" if self._target.on_delete == "mark" else "deleted"
        rows = format_count(pruned.rows, "row")
        return found[-1], pruned.rows, f"{verb} {rows} of {files} no longer there"

    def _is_stale(self, file: str) -> bool:
        """Whether the rows of a file are out of date: it is gone, or will be read again."""
        identity = unescape_path(file)
        if (mark := self._present.sets.value("loaded", file)) is not None:
            return mark != self._session.mark_of(self._present.naming.path(identity) or identity)
        return not self._present.sets.has("seen", file) or not self._session.is_done(identity)


class FolderMirror(Mirror):
    """The mirror of a folder: the outputs of inputs that are gone are removed."""

    _session: FolderLedgerSession

    def _prune(self) -> tuple[GoneFiles, int, str | None]:
        known = self._session.known_outputs()
        gone = self._present.find_gone((name for name, _ in known), ())
        if not gone.files:
            return gone, 0, None
        ended, states = list(map(unescape_path, gone.files)), dict(known)
        naming, removed = self._present.naming, 0
        for name in ended:
            path = naming.path(name) or name
            removed += remove_output(self._target, path, states[escape_path(name)])
        self._session.forget(ended)
        note = f"removed {format_count(removed, 'output')} of inputs no longer there"
        if left := len(ended) - removed:
            note += f"; {format_count(left, 'other')}, changed since by another program, stayed"
        return gone, removed, note


def _entered(lines: Iterable[LedgerLine], rejected: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the file and the rows of the entries of the job; add files to `rejected`."""
    for line in lines:
        if line.is_of_job:
            if line.rejected:
                rejected.append(line.file)
            yield line.file, line.written


def with_files(block: ColumnBlock, files: Sequence[str], places: Sequence[int]) -> ColumnBlock:
    """Return a block with the file of each row. `places` has the index of the file by row."""
    values = [files[place] for place in places]
    return ColumnBlock(
        [*block.names, FILE_COLUMN], [*block.kinds, "text"], [*block.values, values], block.count,
        block.present,
    )  # fmt: skip
