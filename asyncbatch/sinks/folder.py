"""Mirrored outputs: one output for each input, in a folder or an object store."""

from __future__ import annotations

import errno
import os
import posixpath
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import encode, encode_lines
from asyncbatch.formats.detect import LINES_ENDINGS, has_lines_suffix
from asyncbatch.sinks.base import OutputError
from asyncbatch.sources.identity import mirrored_path
from asyncbatch.storage.atomic import PUBLIC_MODE
from asyncbatch.storage.listing import ObjectVersion, list_versions
from asyncbatch.storage.stores import Stores
from asyncbatch.storage.uploads import ObjectWriter, check_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from asyncbatch.core.records import Json
    from asyncbatch.core.settings import FileWorkSettings, Format, StoreSettings
    from asyncbatch.sinks.base import Pending
    from asyncbatch.sinks.target import Target

_ENDINGS = (".json", *LINES_ENDINGS)
# Errors of the disk: no other output can be written either.
_DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))


def output_path(target: Target, path: str) -> str:
    """Return the path of the output for the input at `path`.

    Raises UsageError if the input is outside the folder that is mirrored.
    """
    if path == STDIN:
        name = "stdin.jsonl" if target.format == "jsonl" else "stdin.json"
    else:
        name = mirrored_path(path, target.root)
    if name == ".." or name.startswith("../"):
        advice = "name a folder above it with --root"
        raise UsageError(
            f"{display_path(path)} is outside the folder that {target.name} mirrors: {advice}"
        )
    return os.path.join(target.path, _renamed(name, target))


def _renamed(name: str, target: Target) -> str:
    compression = compression_by_name(name)
    stem = name[: -len(compression.suffix)] if compression else name
    suffix = name[len(stem) :]
    if target.compression != "keep":
        suffix = "" if target.compression == "none" else f".{target.compression}"
    if target.format != "keep":
        root, ending = os.path.splitext(stem)
        stem = (root if ending.lower() in _ENDINGS else stem) + f".{target.format}"
    return stem + suffix


def extent_of(target: Target, path: str) -> Extent | None:
    """Return the state of the output for the input at `path`, None if it is missing."""
    try:
        status = os.stat(output_path(target, path))
    except (OSError, UsageError):
        return None
    return Extent(status.st_mtime_ns, status.st_size)


def remove_output(target: Target, path: str, states: Sequence[Extent]) -> bool:
    """Remove the output for the input at `path`, and folders that are empty then.

    An output in none of these states was changed by another program, and stays. Returns whether it
    was removed. Raises SinkError.
    """
    if extent_of(target, path) not in states:
        return False
    output, root = output_path(target, path), os.path.normpath(target.path)
    try:
        os.unlink(output)
    except OSError as error:
        raise SinkError(f"cannot remove {display_path(output)}: {error.strerror}") from None
    with suppress(OSError):  # a folder that is not empty
        while (output := os.path.dirname(output)) != root:
            os.rmdir(output)
    return True


def check_disk(folder: str) -> None:
    """Raise UsageError if a folder, which may not exist yet, is on a read-only disk."""
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise UsageError(f"cannot write {folder}: {os.strerror(errno.EROFS)}")


def temporary(path: str) -> str:
    """Return the temporary path of the output at `path`, used until it is complete.

    The name is hidden, so that no search finds it. It is always the same, so that the next run
    replaces the file of a killed run.
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.asyncbatch")


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, PUBLIC_MODE)


class MirroredFile:
    """A new file for `path`. An earlier file at `path` stays until `complete`.

    All methods except `abort` raise OSError.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._path, self._temporary = path, temporary(path)
        self._stream = open(self._temporary, "wb", opener=_open_no_link)  # noqa: SIM115 - closed by `complete`

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._stream.write(data)

    def complete(self) -> None:
        """Move the file to its path."""
        self._stream.close()
        os.replace(self._temporary, self._path)

    def abort(self) -> None:
        """Leave no trace."""
        with suppress(OSError):  # a write that failed fails again when the buffer is flushed
            self._stream.close()
        with suppress(OSError):
            os.unlink(self._temporary)


NewT = TypeVar("NewT", bound="MirroredWriter")


class MirroredWriter(Protocol):
    """An output that is being written: a `MirroredFile` or an `ObjectWriter`."""

    def write(self, data: bytes) -> None:
        """Add bytes."""
        ...

    def abort(self) -> None:
        """Leave no trace."""
        ...


class MirroredOutput(ABC, Generic[NewT]):
    """The base of mirrored outputs: one output for each input, complete or not there.

    Call `begin`, then `write` repeatedly, then `end` or `discard`. A JSON output has the shape of
    its input. For an array it is an array. For one document it is the result, or an array of
    several results; if the document was dropped, there is no output.
    """

    # Errors that would occur for all other outputs too.
    fatal_errnos: frozenset[int]
    # As in `RowWriter`. Files need no abort: the next run replaces an unfinished file.
    abandon: Callable[[], None] | None = None

    def __init__(self, target: Target, form: Format) -> None:
        self._target, self._form = target, form
        self._path = ""
        self._as_lines = self._single = False
        self._new: NewT | None = None
        self._waiting: bytes | None = None
        self._written = 0

    @abstractmethod
    def make(self, path: str) -> NewT:
        """Start the output at `path`. Raises OSError."""

    @abstractmethod
    def complete(self, new: NewT) -> None:
        """Put an output in place, or start to. Raises OSError."""

    def take_pending(self) -> Pending | None:
        """Return the pending upload of the last output, or None."""
        return None

    def begin(self, path: str) -> None:
        """Start the output for the input at `path`. Raises OutputError."""
        try:
            self._path = output_path(self._target, path)
        except UsageError as error:
            raise OutputError(str(error)) from None
        form = self._form if self._target.format == "keep" else self._target.format
        self._as_lines = form == "jsonl" or (form == "auto" and has_lines_suffix(path))
        self._single = False
        self._new = self._waiting = None
        self._written = 0

    def write(self, rows: Sequence[Json], *, single: bool) -> None:
        """Write rows. `single`: the input is one document. Raises OutputError."""
        self._single = single
        if self._as_lines:
            self._put(encode_lines(rows))
        elif rows:
            texts = list(map(encode, rows))
            if self._waiting is not None:
                texts.insert(0, self._waiting)
            *whole, self._waiting = texts
            if whole:
                start = b"[\n" if self._new is None else b""
                self._put(start + b"".join(text + b",\n" for text in whole))
        self._written += len(rows)

    def end(self) -> int:
        """Complete the output; return its number of rows. Raises OutputError."""
        if not self._as_lines:
            self._end_json()
        elif self._new is None:
            self._put(b"")
        if self._new is not None:
            with self.naming(self._path):
                self.complete(self._new)
            self._new = None
        else:
            self.drop()
        return self._written

    def _end_json(self) -> None:
        last = self._waiting
        if self._new is not None:
            self._put((last or b"") + b"\n]\n")
        elif self._single:
            if last is not None:
                self._put(last + b"\n")
        else:
            self._put(b"[]\n" if last is None else b"[\n" + last + b"\n]\n")

    def drop(self) -> None:
        """End the current file, which has no output any more. Raises OutputError."""
        if self._target.mode == "mirror":
            with self.naming(self._path), suppress(FileNotFoundError):
                os.unlink(self._path)

    def discard(self) -> None:
        """Remove the unfinished output."""
        if self._new is not None:
            self._new.abort()
            self._new = None

    def _put(self, data: bytes) -> None:
        with self.naming(self._path):
            if self._new is None:
                self._new = self.make(self._path)
            compression = compression_by_name(self._path)
            self._new.write(compression.compress(data) if compression else data)

    @contextmanager
    def naming(self, path: str) -> Iterator[None]:
        """Turn an OSError into an OutputError about the output at `path`."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write {display_path(path)}: {error.strerror or error}",
                is_lost=error.errno in self.fatal_errnos,
            ) from None


class FolderOutput(MirroredOutput[MirroredFile]):
    """Mirrored outputs as files in a folder."""

    fatal_errnos = _DISK_ERRORS

    def __init__(self, target: Target, form: Format) -> None:
        super().__init__(target, form)
        self._root = os.path.realpath(target.path)
        self._checked_folder: str | None = None  # the folder of the last output

    def make(self, path: str) -> MirroredFile:
        folder = os.path.dirname(path)
        if folder != self._checked_folder:
            self._check_inside(folder)
            self._checked_folder = folder
        return MirroredFile(path)

    def _check_inside(self, folder: str) -> None:
        """Raise OSError if a symbolic link below the target leads out of it."""
        real = os.path.realpath(folder)
        if os.path.commonpath((real, self._root)) != self._root:
            raise OSError(errno.ELOOP, f"a symbolic link in the target folder leads to {real}")

    def complete(self, new: MirroredFile) -> None:
        new.complete()


_MAX_UPLOADS = 16  # concurrent uploads of a worker, to cover the latency of the store
# Size in bytes and concurrency of the parts of a large object. Small: several workers upload.
_PART_BYTES, _MAX_PARTS = 8 * 1024 * 1024, 2
_CACHED_LISTINGS = 8  # folders; a few are enough, because inputs come folder by folder


class ObjectOutput(MirroredOutput[ObjectWriter]):
    """Mirrored outputs as objects below a prefix.

    An output is uploaded while the next ones are made. The number of bytes that wait for an upload
    is limited. `abandon` may be called from another thread.
    """

    fatal_errnos = frozenset((errno.EACCES, errno.ENOENT, errno.EAGAIN, errno.ECONNRESET))

    def __init__(self, target: Target, files: FileWorkSettings) -> None:
        super().__init__(target, files.format)
        self._stores = Stores(target.stores or files.stores, writes=True)
        self._max_waiting = files.sizes.waiting
        self._threads = ThreadPoolExecutor(_MAX_UPLOADS)
        self._uploads: deque[tuple[Future[ObjectVersion], ObjectWriter]] = deque()
        self._pending: Pending | None = None
        self._is_abandoned = False

    def make(self, path: str) -> ObjectWriter:
        if self._is_abandoned:
            raise OSError(errno.ECANCELED, "the run was stopped")
        return ObjectWriter(
            self._stores.location(path), path, _PART_BYTES, max_concurrency=_MAX_PARTS
        )

    def complete(self, new: ObjectWriter) -> None:
        uploads = self._uploads
        while uploads and (
            uploads[0][0].done()
            or sum(one.size for _, one in uploads) + new.size > self._max_waiting
        ):
            uploads[0][0].exception()  # wait for the upload; `wait` below raises its error
            uploads.popleft()
        done = self._threads.submit(new.complete)
        uploads.append((done, new))
        path = self._path

        def wait() -> Extent:
            with self.naming(path):
                return extent_of_version(done.result())

        self._pending = wait

    def take_pending(self) -> Pending | None:
        pending, self._pending = self._pending, None
        return pending

    def abandon(self) -> None:
        self._is_abandoned = True
        started = [new for _, new in tuple(self._uploads)]
        for new in (*started, *([] if self._new is None else [self._new])):
            new.abort()


class ObjectStates:
    """The states of outputs below a prefix, by listing its folders. Not thread-safe."""

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        self._target, self._stores = target, Stores(settings, writes=True)
        self._known: OrderedDict[str, Mapping[str, ObjectVersion]] = OrderedDict()

    def extent_of(self, path: str) -> Extent | None:
        """Return the state of the output for the input at `path`, None if it is missing.

        Raises UsageError if the listing fails.
        """
        try:
            output = output_path(self._target, path)
        except UsageError:  # the writer reports the reason
            return None
        folder, name = posixpath.split(output)
        if folder not in self._known:
            if len(self._known) == _CACHED_LISTINGS:
                self._known.popitem(last=False)
            self._known[folder] = self._listed(folder)
        self._known.move_to_end(folder)
        version = self._known[folder].get(name)
        return None if version is None else extent_of_version(version)

    def _listed(self, folder: str) -> Mapping[str, ObjectVersion]:
        try:
            return list_versions(self._stores.location(folder), folder)
        except OSError as error:
            raise UsageError(
                f"cannot list {display_path(folder)}/ to find the finished outputs: "
                f"{error.strerror}; --force processes all inputs again"
            ) from None


def extent_of_version(version: ObjectVersion) -> Extent:
    """Return the version of an object as an extent: a hash of its ETag, and its size."""
    digest = blake2b(version.etag.strip('"').encode(), digest_size=8).digest()
    return Extent(int.from_bytes(digest, "big") >> 1, version.size)


def check_prefix(target: Target, settings: StoreSettings) -> None:
    """Raise UsageError if objects cannot be written below a prefix."""
    url = f"{target.path}asyncbatch"
    try:
        check_writable(Stores(settings, writes=True).location(url), url)
    except OSError as error:
        raise UsageError(f"cannot write {target.name}: {error.strerror}") from None
