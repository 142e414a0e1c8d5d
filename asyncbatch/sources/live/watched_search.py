"""The search for files in watched folders: those that are there, then each one that arrives."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.paths import is_archive_name, is_object_url
from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError
from asyncbatch.sources.inputs import is_ignored_below, walk
from asyncbatch.sources.live.completion import UNFINISHED_SUFFIXES, FileCompletion
from asyncbatch.sources.live.seen import FoundFile
from asyncbatch.sources.live.watch import POLL_SECONDS, ChangedPaths, FolderWatch
from asyncbatch.sources.search import CHUNK_PATHS, CHUNK_SECONDS, OPENING_PATHS
from asyncbatch.sources.selection import Filter, has_magic
from asyncbatch.transforms.dedupe import DIGEST_BYTES, DigestSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from asyncbatch.core.settings import WatchSettings
    from asyncbatch.sources.count_ahead import InputCount
    from asyncbatch.sources.inputs import Inputs

# Seconds between two scans of the folders while the system notifies: notifications can be lost.
_RESCAN_SECONDS = 30.0
_SCAN_SHARE = 10  # a scan is repeated only after ten times its duration
_SCAN_PATHS = 256  # paths of a scan between two looks at the changed paths
# A new folder is looked at again after this time: files may have come before it was watched.
_NEW_FOLDER_SECONDS = 1.0


class WatchedSearch:
    """Finds the files of watched folders, each version of a file once it is complete, without end.

    It takes the place of a `Search`. Call `open` first, then iterate `chunks`, and `finish` for
    each path when its outcome is delivered: until then, a new version of the file is not given
    out. Memory is bounded by the number of incomplete files; the digests of all present files go
    to a temporary file if they are many. `open`, `chunks` and `close` are for one task, `finish`
    for any thread.
    """

    is_exhausted = False

    def __init__(self, inputs: Inputs, settings: WatchSettings) -> None:
        self.opening: Sequence[str] = ()
        self.found_count: int = 0
        self.has_matches: bool = False
        self.leaves_out: Callable[[str], bool] | None = None
        self._inputs, self._settings = inputs, settings
        self._wanted = Filter(inputs.selection)
        # By the absolute path of each folder, its path as the user named it, both with a slash.
        self._roots = {_slashed(os.path.abspath(one)): _slashed(one) for one in inputs.paths}
        away = (settings.move_done, settings.move_failed)
        self._away = tuple(_slashed(os.path.realpath(one)) for one in away if one is not None)
        self._root_ids: tuple[tuple[int, int] | None, ...] = ()
        self._changed, self._wakeup = ChangedPaths(), Wakeup()
        self._watch = (
            FolderWatch(
                sorted(self._roots), self._wakeup, lambda _: True, recursive=True,
                changed=self._changed, option="--watch",
            )
            if settings.poll is None
            else None
        )  # fmt: skip
        renames = None if self._watch is None else self._watch.renames
        self._completion = FileCompletion(settings.settle, settings.marker, renames)
        self._lock = threading.Lock()
        self._in_flight: dict[str, FoundFile] = {}  # given out, and not finished
        self._changed_in_flight: set[str] = set()
        self._due: dict[str, float] = {}  # paths to look at later, and when
        self._seen = DigestSet()  # the versions of files that were given out ...
        self._seen_next: DigestSet | None = None  # ... and those that the current scan has found
        self._seen_count = self._next_count = 0
        self._has_lost_files = False  # whether files may be gone since `take_lost`
        # The absolute paths of files that were gone: if one comes back, it is new. Scans drop them.
        self._gone: set[str] = set()
        self._gone_before_scan: set[str] = set()
        self._candidates: Iterator[str] = iter(())
        self._scan: Iterator[str] | None = None
        self._scan_seconds = 0.0  # of the current scan
        self._next_scan_at = self._earliest_scan_at = 0.0
        self._is_idle = False  # whether there is nothing to look at now

    def open(self) -> None:
        """Find the first files. Blocks the calling thread. Raises UsageError."""
        for path in self._inputs.paths:
            _check_folder(path)
        self._check_apart()
        self._begin_scan()
        self.opening = self._next_paths(OPENING_PATHS + 1)

    async def chunks(self) -> AsyncIterator[Sequence[str]]:
        """Yield the files in chunks, and wait for more."""
        if self._watch is not None:
            self._watch.start()
        if self.opening:
            yield self.opening
        while True:
            chunk = await asyncio.to_thread(self._next_paths, CHUNK_PATHS)
            if chunk:
                yield chunk
            elif self._is_idle:
                await self._wait()

    def finish(self, path: str) -> FoundFile | None:
        """Return the version of a file that was given out and is finished now."""
        with self._lock:
            file = self._in_flight.pop(path, None)
            if path in self._changed_in_flight:
                self._changed_in_flight.discard(path)
                self._due[path] = 0.0
                self._wakeup.set()
        return file

    def take_lost(self) -> bool:
        """Whether files may be gone since the last call."""
        has_lost, self._has_lost_files = self._has_lost_files, False
        return has_lost

    def note_gone(self, paths: Iterable[str]) -> None:
        """Note files that are gone, or must be read again: they are new when they are found."""
        with self._lock:
            for path in map(os.path.abspath, paths):
                self._gone.add(path)
                if os.path.lexists(path):  # it is there, or back already
                    self._due[self._as_named(path)] = 0.0
        self._wakeup.set()

    def count_ahead(self) -> None:
        """Do nothing: more files may always come."""

    @property
    def expected(self) -> InputCount | None:
        """None: the number of files is never known."""
        return None

    def close(self) -> None:
        """End the notifications."""
        if self._watch is not None:
            self._watch.close()

    def with_metadata(self, paths: Sequence[str]) -> Sequence[str]:
        """Return the paths: they are those of files."""
        return paths

    def below(self, path: str) -> str:
        """Return the path of a file below its watched folder."""
        roots = (root for root in self._roots.values() if path.startswith(root))
        return path[max(map(len, roots), default=0) :]

    # --- files to look at

    def _next_paths(self, most: int) -> Sequence[str]:
        """Return the next complete files, at most `most`; note whether there are more to look at.

        It ends after a while even without any, so that the thread can end.
        """
        chunk: list[str] = []
        began, is_scan = time.monotonic(), self._scan is not None
        while len(chunk) < most and time.monotonic() - began <= CHUNK_SECONDS:
            path = next(self._candidates, None)
            if path is None:
                self._candidates = self._find_candidates()
                path = next(self._candidates, None)
            self._is_idle = path is None
            if path is None:
                break
            if self._take(path):
                chunk.append(path)
        if is_scan:
            self._scan_seconds += time.monotonic() - began
        self.found_count += len(chunk)
        self.has_matches = self.has_matches or bool(chunk)
        return chunk

    def _find_candidates(self) -> Iterator[str]:
        """Yield the paths to look at, those with changes before those of the scan."""
        while True:
            for changed in self._changed.take():
                yield from self._files_at_changed(changed)
            for path in self._take_due():
                yield from self._files_at(path)
            if self._scan is None:
                if not self._begin_scan_if_due():
                    return
                continue
            paths = list(islice(self._scan, _SCAN_PATHS))
            yield from paths
            if len(paths) < _SCAN_PATHS:
                self._end_scan()

    def _take(self, path: str) -> bool:
        """Whether a path is that of a new version of a file, which is complete: give it out."""
        if self._is_left_out(path):
            return False
        file = _stat_file(path)
        if file is None:
            return False
        with self._lock:
            is_known = self._is_known(file)
            flying = self._in_flight.get(path)
            if flying is not None:
                if (flying.key, flying.size) != (file.key, file.size):
                    self._changed_in_flight.add(path)
                return False
            # It need not be complete: it was when it was given out.
            if is_known and os.path.abspath(path) not in self._gone:
                return False
            if not self._completion.is_complete(file, path):
                if self._settings.marker is None:  # else the marker is a change of its own
                    self._due[path] = time.monotonic() + self._settings.settle
                return False
            self._gone.discard(os.path.abspath(path))
            self._remember(file)
            self._in_flight[path] = file
        return True

    def _is_known(self, file: FoundFile) -> bool:
        """Whether this version of a file was given out before. The scan remembers it then."""
        is_known = _digest(file) in self._seen
        if is_known:
            self._remember(file)
        return is_known

    def _remember(self, file: FoundFile) -> None:
        """Note that this version of a file was given out."""
        digest = _digest(file)
        if self._seen_next is not None:
            self._next_count += self._seen_next.add_one(digest)
        self._seen_count += self._seen.add_one(digest)

    def _is_left_out(self, path: str) -> bool:
        if path.endswith(UNFINISHED_SUFFIXES) or is_archive_name(path):
            return True
        marker = self._settings.marker
        if marker is not None and path.endswith(marker):
            return True
        if self._away:  # it may be inside by another name: a link is in one of the paths
            folder = _slashed(os.path.realpath(os.path.dirname(path)))
            if folder.startswith(self._away):
                return True
        if not self._inputs.is_in_shard(path):
            return True
        return self.leaves_out is not None and self.leaves_out(path)

    def _take_due(self) -> list[str]:
        """Return the paths that it is time to look at again."""
        now = time.monotonic()
        with self._lock:
            due = [path for path, at in self._due.items() if at <= now]
            for path in due:
                del self._due[path]
        return due

    def _files_at_changed(self, changed: str) -> Iterator[str]:
        """Yield the files that the change of an absolute path concerns."""
        root = next((root for root in self._roots if changed.startswith(root)), None)
        if root is None or changed == root:  # a watched folder itself
            self._changed.lose()
            return
        path = self._as_named(changed)
        if not os.path.lexists(path):
            self._has_lost_files = True
        marker = self._settings.marker
        if marker is not None and path.endswith(marker):
            path = path[: -len(marker)]
        if self._may_enter(path):
            self._due[path] = time.monotonic() + _NEW_FOLDER_SECONDS
        yield from self._files_at(path)

    def _as_named(self, absolute: str) -> str:
        """Return an absolute path below a watched folder as one below the folder as it is named."""
        root = next((root for root in self._roots if absolute.startswith(root)), "")
        return self._roots.get(root, "") + absolute[len(root) :]

    def _files_at(self, path: str) -> Iterator[str]:
        """Yield the wanted files in a folder, or a file if it is wanted."""
        if not self._may_enter(path):
            if self._is_wanted(path):
                yield path
            return
        if self._wanted.follow_symlinks:  # links may run in a circle, which a scan knows to avoid
            self._changed.lose()
            return
        for folder, _, names in os.walk(path):
            yield from filter(self._is_wanted, (os.path.join(folder, name) for name in names))

    def _may_enter(self, path: str) -> bool:
        return os.path.isdir(path) and (self._wanted.follow_symlinks or not os.path.islink(path))

    def _is_wanted(self, path: str) -> bool:
        """Whether a scan of the folders would find a path. It decides as `walk` does."""
        wanted, relative = self._wanted, self.below(path)
        root = path[: len(path) - len(relative)]
        *folders, name = relative.split("/")
        below = ""
        for folder in folders:
            if not wanted.takes_folder(folder, below):
                return False
            below += f"{folder}/"
            if not wanted.follow_symlinks and os.path.islink(f"{root}{below}".rstrip("/")):
                return False
        if not name or not wanted.takes_file(name, below):
            return False
        return not (wanted.gitignore and is_ignored_below(root, path))

    # --- scans of all folders

    def _begin_scan_if_due(self) -> bool:
        """Begin a scan if it is time, or if changes may be missing."""
        now = time.monotonic()
        if self._changed.may_miss_some:
            self._next_scan_at = min(self._next_scan_at, self._earliest_scan_at)
        if now < self._next_scan_at:
            return False
        self._begin_scan()
        return True

    def _begin_scan(self) -> None:
        self._changed.may_miss_some = False
        root_ids = tuple(map(_folder_id, self._inputs.paths))
        if root_ids != self._root_ids and self._root_ids and self._watch is not None:
            self._watch.restart()  # a folder was replaced: nobody watches the new one
        self._root_ids = root_ids
        self._completion.begin_scan()
        self._seen_next, self._next_count = DigestSet(), 0
        self._gone_before_scan = set(self._gone)
        self._scan_seconds = 0.0
        roots = filter(os.path.isdir, self._inputs.paths)
        self._scan = (path for root in roots for path in walk(root, self._wanted))

    def _end_scan(self) -> None:
        self._scan = None
        if self._seen_next is not None:
            self._seen.close()
            self._has_lost_files |= self._next_count < self._seen_count
            self._seen, self._seen_next = self._seen_next, None
            self._seen_count = self._next_count
            with self._lock:
                self._gone -= self._gone_before_scan
        now = time.monotonic()
        pause = self._settings.poll
        if pause is None:
            is_notified = self._watch is not None and self._watch.is_working
            pause = _RESCAN_SECONDS if is_notified else POLL_SECONDS
        least = _SCAN_SHARE * self._scan_seconds
        self._earliest_scan_at = now + least
        self._next_scan_at = now + max(pause, least)

    async def _wait(self) -> None:
        """Wait for a change, or until it is time to look again."""
        with self._lock:
            until = min(self._due.values(), default=self._next_scan_at)
        until = min(until, self._next_scan_at)
        if self._changed.may_miss_some:
            until = min(until, self._earliest_scan_at)
        await self._wakeup.wait(max(0.0, until - time.monotonic()))

    def _check_apart(self) -> None:
        """Raise UsageError if a folder is given twice, or is inside another one."""
        places = [_slashed(os.path.realpath(path)) for path in self._inputs.paths]
        for number, place in enumerate(places):
            for other, above in enumerate(places):
                if number != other and place.startswith(above):
                    inner, outer = self._inputs.paths[number], self._inputs.paths[other]
                    raise UsageError(
                        f"--watch: {inner} is inside {outer}, which is watched with all its "
                        "folders: name only one of them"
                    )


def _check_folder(path: str) -> None:
    """Raise UsageError unless a path is that of a folder that can be watched."""
    if path == STDIN or is_object_url(path) or (has_magic(path) and not os.path.exists(path)):
        raise UsageError(f"--watch needs folders of this machine, not {path}")
    try:
        os.listdir(path)
    except NotADirectoryError:
        raise UsageError(
            f"--watch needs folders, and {path} is a file: name its folder, and the file with "
            "--pattern"
        ) from None
    except OSError as error:
        raise UsageError(f"--watch cannot read {path}: {error.strerror}") from None


def _stat_file(path: str) -> FoundFile | None:
    """Return the version of a file, or of a folder that a scan could not list; else None."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None
    key = (status.st_mtime_ns, path)
    return FoundFile(key, status.st_ino, status.st_size, status.st_ctime_ns)


def _digest(file: FoundFile) -> bytes:
    """Return the digest of a version of a file."""
    version = f"{file.size} {file.key[0]} {file.name}".encode("utf-8", "surrogateescape")
    return blake2b(version, digest_size=DIGEST_BYTES).digest()


def _folder_id(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def _slashed(path: str) -> str:
    return os.path.join(path, "")
