"""Sinks for partitioned targets: one file for each combination of the values of fields."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.core.paths import is_store_url
from asyncbatch.core.settings import StoreSettings
from asyncbatch.core.system import usable_cpus
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.sinks.partitions.frames import PARTITION, make_frame
from asyncbatch.sinks.partitions.names import NULL
from asyncbatch.sinks.partitions.stage import PartitionStage
from asyncbatch.sinks.text_files import CsvSink, FileSink
from asyncbatch.storage.atomic import AtomicFile, is_alive, sync_file_system
from asyncbatch.storage.opener import open_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import Refusal
    from asyncbatch.sinks.partitions.layout import PartitionLayout

_BLOCK_BYTES = 1024 * 1024  # of a partition, which are compressed and written together
_MAX_UPLOADS = 4  # partitions that are written to a store at a time


class PartitionFile(AtomicFile):
    """The file of one partition, in the folder of unfinished ones until `publish`."""

    final_path: str
    temp_path: str
    is_special: bool

    def __init__(self, path: str, temp_path: str) -> None:
        super().__init__(path)
        self.final_path, self.temp_path, self.is_special = path, temp_path, False

    def open(self) -> None:
        try:
            self.stream = open(self.temp_path, "wb", opener=self._create)  # noqa: SIM115 - closed by `commit`
        except OSError as error:
            raise self.sink_error(error) from None

    def commit(self) -> None:
        """Close the file, which stays where it is. Raises SinkError."""
        try:
            self.stream.close()
        except OSError as error:
            raise self.sink_error(error) from None


class PartitionFolder:
    """The local files of a run, which are unfinished in one hidden folder, and renamed together."""

    def __init__(self, root: str) -> None:
        self._root = root or os.curdir
        self._folder = ""
        self._files: list[PartitionFile] = []
        self._checked: set[str] = set()
        self._folds_case = False
        self._folded: dict[str, str] = {}  # paths, by their spelling without case
        self._lock = -1

    def open(self) -> None:
        """Create the folder, and remove those of killed runs. Raises OSError."""
        self._remove_leftovers()
        prefix = f".partition-files.{os.getpid()}."
        self._folder = tempfile.mkdtemp(prefix=prefix, dir=self._root)
        head, name = os.path.split(self._folder)
        self._folds_case = os.path.exists(os.path.join(head, name.upper()))
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def file(self, path: str) -> PartitionFile:
        """Return the file for a partition at `path`. Raises OSError if it cannot be put there."""
        folder = os.path.dirname(path)
        if folder not in self._checked:
            self._make_folder(folder)
            self._checked.add(folder)
        if self._folds_case:
            self._check_case(path)
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        file = PartitionFile(path, os.path.join(self._folder, str(len(self._files))))
        self._files.append(file)
        return file

    def _make_folder(self, folder: str) -> None:
        """Create a folder; a symbolic link must not lead out of the target."""
        real, root = os.path.realpath(folder), os.path.realpath(self._root)
        if os.path.commonpath((real, root)) != root:
            raise OSError(errno.ELOOP, f"a symbolic link in the target folder leads to {real}")
        os.makedirs(folder or os.curdir, exist_ok=True)
        if not os.access(folder or os.curdir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    def _check_case(self, path: str) -> None:
        """Raise OSError if another partition has the same file on a disk that ignores case."""
        folded = unicodedata.normalize("NFC", path).casefold()
        other = self._folded.setdefault(folded, path)
        if other != path:
            raise OSError(
                errno.EEXIST,
                f"this disk takes it for the same file as {other}: give both values the same case,"
                " for instance with --jq and ascii_downcase",
                path,
            )

    def publish(self) -> None:
        """Put all files in place. Raises SinkError."""
        sync_file_system(self._root)
        for file in self._files:
            file.publish()
        sync_file_system(self._root)

    def close(self) -> None:
        """Remove the folder, with the files that are not in place."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock != -1:
            os.close(self._lock)

    def _remove_leftovers(self) -> None:
        pattern = re.compile(r"\.partition-files\.(\d+)\..+")
        with os.scandir(self._root) as entries:
            for entry in entries:
                if found := pattern.fullmatch(entry.name):
                    pid = int(found[1])
                    if pid == os.getpid() or not is_alive(pid):  # pids repeat in containers
                        _remove_unlocked(entry.path)


def _remove_unlocked(folder: str) -> None:
    """Remove a folder unless a process, perhaps of another container, holds its lock."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


class PartitionedSink(FileSink):
    """The base of the sinks: rows are loaded into the stage; `complete` writes the partitions.

    Partitions that get no row in this run are not touched.
    """

    max_threads = 1  # partitions that are written at a time

    stage: PartitionStage
    file: PartitionStage

    def set_layout(self, name: str, layout: PartitionLayout, stores: StoreSettings | None) -> None:
        """Set the layout of the target with this name. Call it first."""
        self._name, self._root, self._stores = name, layout.root, stores
        self._is_remote = is_store_url(layout.root)
        self.file = self.stage = PartitionStage(name, None if self._is_remote else layout.root)
        self._is_abandoned = False
        self._done: list[str] = []  # the names of partitions
        self._open_files: set[AtomicFile] = set()

    @property
    def notes(self) -> Sequence[str]:
        """The notes for the user."""
        return self.file_notes()

    def file_notes(self) -> list[str]:
        """Return the number of files for the user, and a hint if the fields have no values."""
        count = len(self._done)
        if not count:
            return []
        notes = [f"{count:,} file{'' if count == 1 else 's'} written for {self._name}"]
        if all(NULL in name for name in self._done):
            notes.append(
                f"no record has a value for a field in --to {self._name}, so all are in {NULL}"
            )
        return notes

    def open(self) -> None:
        """Begin the stage. Raises UsageError."""
        if self._is_remote:
            self._check_store()
        self.file.open()

    def _check_store(self) -> None:
        from asyncbatch.storage.stores import Stores
        from asyncbatch.storage.uploads import check_writable

        url = f"{self._root}asyncbatch"
        try:
            stores = Stores(self._stores or StoreSettings(), writes=True)
            check_writable(stores.location(url), url)
        except OSError as error:
            raise UsageError(f"cannot write {self._name}: {error.strerror}") from None

    def keep(self, path: str, extent: Extent) -> Extent:
        at = self.position
        self.stage.copy(path, extent)
        return Extent(at, extent.length, 0, extent.take)

    def complete(self) -> None:
        names = self.stage.names
        try:
            self.stage.begin_reading()
            if self._is_remote:
                self._write_all(names, [self._object(name) for name in names])
            elif names:
                self._write_files(names)
            self.file.remove_unfinished()
            self._done = names
        finally:
            self.file.discard()

    def give_up(self) -> None:
        """End the writing of partitions. May be called from any thread."""
        self._is_abandoned = True
        for file in tuple(self._open_files):
            file.abandon()

    def write_rows(self, file: AtomicFile, name: str) -> None:
        """Write the rows of a partition to an open file, and complete it. Raises SinkError."""
        compression = compression_by_name(name)
        for rows in self._blocks(name):
            file.write(compression.compress(rows) if compression else rows)
        file.commit()

    def _blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a partition in blocks of a good size."""
        block, size = [self.header], len(self.header)
        for rows in self.stage.rows(name):
            block.append(rows)
            size += len(rows)
            if size >= _BLOCK_BYTES:
                self._check_abandoned()
                yield b"".join(block)
                block, size = [], 0
        if block:
            yield b"".join(block)

    @property
    def header(self) -> bytes:
        """The bytes at the beginning of each file."""
        return b""

    def _object(self, name: str) -> AtomicFile:
        return open_output(
            self._root + name, self._stores, random_access=self.goes_back, is_checked=True
        )

    def _write_files(self, names: Sequence[str]) -> None:
        folder = PartitionFolder(self._root)
        try:
            folder.open()
            self._write_all(names, [folder.file(self._root + name) for name in names])
            folder.publish()
        except OSError as error:
            path = error.filename or self._name
            raise SinkError(f"cannot write {path}: {error.strerror or error}", path) from None
        finally:
            folder.close()

    def _write_all(self, names: Sequence[str], files: Sequence[AtomicFile]) -> None:
        if self.max_threads == 1:
            for file, name in zip(files, names, strict=True):
                self._write_one(file, name)
            return
        with ThreadPoolExecutor(self.max_threads) as threads:
            try:
                for _ in threads.map(self._write_one, files, names):
                    pass
            except BaseException:
                self.give_up()
                raise

    def _write_one(self, file: AtomicFile, name: str) -> None:
        self._check_abandoned()
        self._open_files.add(file)
        try:
            file.open()
            self.write_rows(file, name)
        except UsageError as error:  # the store refuses it
            raise SinkError(str(error), file.path) from None
        except BaseException:
            file.discard()
            raise
        finally:
            self._open_files.discard(file)

    def _check_abandoned(self) -> None:
        if self._is_abandoned:
            raise SinkError(f"cannot write {self._name}: the run was stopped", self._name)


class PartitionedLinesSink(PartitionedSink):
    """Partitions in JSON Lines. The workers encode the lines, and put them into frames."""

    def __init__(self, name: str, layout: PartitionLayout, stores: StoreSettings | None) -> None:
        self.set_layout(name, layout, stores)
        if self._is_remote:
            self.max_threads: int = _MAX_UPLOADS
        elif compression_by_name(name):
            self.max_threads = usable_cpus()

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - a file of lines rejects no row
    ) -> Sequence[Refusal]:
        """Write frames to the stage. Raises SinkError."""
        self.stage.add(payload)
        return ()


class PartitionedCsvSink(CsvSink, PartitionedSink):
    """Partitions in CSV. All have the same columns, as one file would have.

    The header is at the beginning of the stage, and before the rows of each file.
    """

    def __init__(
        self, name: str, layout: PartitionLayout, stores: StoreSettings | None, **options: Any
    ) -> None:
        CsvSink.__init__(self, name, stores, **options)
        self.set_layout(name, layout, stores)
        if self._is_remote:
            self.max_threads = _MAX_UPLOADS
        self._names: list[str] = []
        self._header_line = b""

    @property
    def notes(self) -> Sequence[str]:
        return [*self.file_notes(), *super().notes]

    @property
    def header(self) -> bytes:
        return self._header_line

    def load(
        self, payload: Sequence[Mapping[str, str | int | None]], groups: Sequence[int] | None = None
    ) -> Sequence[Refusal]:
        rows = [dict(row) for row in payload]
        self._names = [str(row.pop(PARTITION)) for row in rows]
        return super().load(rows, groups)

    def _write_header(self, columns: Sequence[str]) -> None:
        self._header_line = b"".join(self._encode([columns]))
        self.file.write(self._header_line)

    def _write(self, rows: Json, numbers: Sequence[int]) -> list[int]:
        """Write rows of these numbers in frames; return the size of each in bytes."""
        lines = self._encode(rows)
        names = [self._names[number] for number in numbers]
        frames, sizes = [], []
        start = 0
        for at in range(1, len(lines) + 1):
            if at == len(lines) or names[at] != names[start]:
                frame = make_frame(names[start], b"".join(lines[start:at]))
                frames.append(frame)
                inner = list(map(len, lines[start:at]))
                sizes += [inner[0] + len(frame) - sum(inner), *inner[1:]]
                start = at
        self.stage.add(b"".join(frames))
        return sizes
