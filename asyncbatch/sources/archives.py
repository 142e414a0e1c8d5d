"""Archives as folders of their members: the search for members, and their opening."""

from __future__ import annotations

import io
import os
import stat
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.core.paths import ArchiveMember, MemberInfo, is_archive_name
from asyncbatch.core.settings import MAX_UNPACKED_BYTES
from asyncbatch.formats.archives import (
    PackedTar,
    PlainTar,
    read_packed_member,
    read_tar_member,
    read_zip_member,
    tar_members,
    zip_members,
)
from asyncbatch.formats.compression import detect_compression
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.selection import Filter, Selection
from asyncbatch.storage.local import FIRST_READ_BYTES, Content, TooLargeError
from asyncbatch.transforms.dedupe import DIGEST_BYTES, DigestSet

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asyncbatch.core.retry import Retrier
    from asyncbatch.core.settings import FileWorkSettings

# Names of an archive that are remembered in memory, 100 bytes each, and the cache for the others,
# which go to a temporary file.
_REMEMBERED_NAMES = 50_000
_CACHE_KIB = 8 * 1024
_MAGIC_BYTES = 8  # enough to detect a compression


def find_members(
    path: str,
    wanted: Filter,
    max_unpacked: int = MAX_UNPACKED_BYTES,
    max_window: int | None = None,
) -> Iterator[str]:
    """Yield the members of an archive that the selection takes, in the order of the archive.

    Patterns apply as if the archive were a folder. A member that cannot be read, and an archive
    that is damaged, are yielded with their problem. Memory holds the directory of a zip, but one
    header of a tar.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            yield path  # opening it gives the reason
            return
        archive = MemberInfo(path, status.st_mtime_ns)
        names = DigestSet(_REMEMBERED_NAMES, _CACHE_KIB)
        total = 0
        with io.FileIO(path) as file, names:
            for raw_name, info in _members(file, archive, max_unpacked, max_window):
                # Only zips come from Windows, where some programs write its own separators.
                name = _safe_name(raw_name.replace("\\", "/") if info.form == "zip" else raw_name)
                if not _takes(wanted, name):
                    continue
                total += info.size
                label = name
                digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES)
                if not names.add_one(digest.digest()):
                    label = f"{name} (at byte {info.offset})"
                    problem: Exception | None = CorruptArchiveError(
                        "has the name of an earlier member, which alone is read"
                    )
                elif is_archive_name(name):
                    problem = OSError("is an archive in an archive, which is not read: unpack it")
                elif total > max_unpacked and info.form != "packed":
                    problem = _too_large(total, max_unpacked)
                else:
                    problem = info.problem
                yield ArchiveMember(f"{path}/{label}", replace(info, problem=problem))
    except (OSError, CorruptArchiveError, TooLargeError) as error:
        yield ArchiveMember(path, MemberInfo(path, 0, problem=error))


def find_named_member(path: str) -> str:
    """Return the member at a path as reports show it, or the path if it leads to no member."""
    archive = archive_of(path)
    if archive is None:
        return path
    name = path[len(archive) + 1 :]
    return _index(archive, os.stat(archive).st_mtime_ns).get(name, path)


def archive_of(path: str) -> str | None:
    """Return the archive that a path as reports show it leads into, or None."""
    if isinstance(path, ArchiveMember):
        return path.info.archive
    at = path.find("/")
    while at >= 0:
        if is_archive_name(path[:at]) and os.path.isfile(path[:at]):
            return path[:at]
        at = path.find("/", at + 1)
    return None


@lru_cache(maxsize=1)
def _index(archive: str, _: int) -> dict[str, ArchiveMember]:
    """Return the members of an archive by their names. Its time keeps the cache up to date."""
    everything = Filter(Selection(("*",), hidden=True))
    members = find_members(archive, everything)
    start = len(archive) + 1
    return {one[start:]: one for one in members if isinstance(one, ArchiveMember)}


def _members(
    file: io.FileIO, archive: MemberInfo, max_unpacked: int, max_window: int | None
) -> Iterator[tuple[str, MemberInfo]]:
    if archive.archive.lower().endswith(".zip"):
        return zip_members(file, archive)
    is_packed = detect_compression(file.read(_MAGIC_BYTES)) is not None
    file.seek(0)
    if is_packed:
        stream = PackedTar(file, max_unpacked, max_window)
        return tar_members(stream, replace(archive, form="packed"))
    return tar_members(PlainTar(file), replace(archive, form="tar"))


def _safe_name(name: str) -> str:
    """Return the name of a member as a path that does not leave the archive.

    A name is never opened; but ledgers and the outputs of mirrored folders have it too.
    """
    parts = (part for part in name.replace("\0", "").split("/") if part not in ("", ".", ".."))
    return "/".join(parts) + ("/" if name.endswith("/") else "")


def _takes(wanted: Filter, name: str) -> bool:
    """Whether a member is an input: its name, and those of its folders, match the selection.

    An archive in an archive always is one, so that it is not left out in silence.
    """
    folder, slash, last = name.rpartition("/")
    above = ""
    for part in folder.split("/") if folder else ():
        if not wanted.takes_folder(part, above):
            return False
        above += f"{part}/"
    if not last:
        return False
    takes = wanted.takes_folder if is_archive_name(last) else wanted.takes_file
    return takes(last, folder + slash)


def _too_large(size: int, most: int) -> TooLargeError:
    message = f"the archive unpacks to more than {most:,} bytes (--max-decompressed-size)"
    return TooLargeError(size, most, message)


class MemberOpener:
    """Opens members of archives. For one thread at a time, since it keeps a compressed tar open."""

    def __init__(self, settings: FileWorkSettings, retrier: Retrier) -> None:
        self._max_unpacked = settings.max_unpacked
        self._max_window = settings.max_window or settings.sizes.window
        self._retrier = retrier
        self._packed: tuple[MemberInfo, PackedTar] | None = None  # any member, and its archive

    def open(self, path: ArchiveMember, limit: int | None, ahead: int) -> bytes | Content:
        """Return a member's bytes if it has `ahead` bytes or fewer, else a `Content`.

        Raises OSError, CorruptArchiveError, and TooLargeError if it has more than `limit` bytes.
        """
        info = path.info
        if info.problem is not None:
            raise info.problem
        if limit is not None and info.size > limit:
            raise TooLargeError(info.size, limit)
        chunks = self._chunks(info)
        if info.size <= max(ahead, FIRST_READ_BYTES):
            return b"".join(chunks)
        return MemberContent(chunks)

    def size(self, path: ArchiveMember) -> int:
        """Return the size of a member in bytes. Raises the errors of `open`."""
        if path.info.problem is not None:
            raise path.info.problem
        return path.info.size

    def _chunks(self, info: MemberInfo) -> Generator[bytes]:
        if info.form == "packed":
            yield from read_packed_member(self._packed_tar(info), info)
            return
        fd = self._retrier.call(partial(os.open, info.archive, os.O_RDONLY | os.O_CLOEXEC))

        def read(size: int, offset: int) -> bytes:
            return self._retrier.call(partial(os.pread, fd, size, offset))

        try:
            if info.form == "zip":
                yield from read_zip_member(read, info, self._max_window)
            else:
                yield from read_tar_member(read, info)
        finally:
            os.close(fd)

    def _packed_tar(self, info: MemberInfo) -> PackedTar:
        """Return the stream of a compressed tar, at the member or before it."""
        if self._packed is not None:
            last, stream = self._packed
            is_same = (last.archive, last.changed_ns) == (info.archive, info.changed_ns)
            if is_same and stream.tell() <= info.offset:
                return stream
            self._packed = None
            stream.close()
        file = self._retrier.call(partial(io.FileIO, info.archive))
        stream = PackedTar(file, self._max_unpacked, self._max_window)
        self._packed = info, stream
        return stream


class MemberContent(Content):
    """A large member of an archive: its first bytes, and the rest in chunks."""

    def __init__(self, chunks: Generator[bytes]) -> None:
        super().__init__(next(chunks, b""))
        self.is_whole = False
        self._chunks = chunks
        self._rest = b""

    def __exit__(self, *_: object) -> None:
        self._chunks.close()

    def read_into(self, buffer: memoryview) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
            self._add_count(len(self._rest))
        chunk = self._rest[: len(buffer)]
        self._rest = self._rest[len(chunk) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def chunks(self, idle: float | None = None) -> Iterator[bytes]:  # noqa: ARG002 - a file never idles
        yield self.head
        for chunk in self._chunks:
            self._add_count(len(chunk))
            yield chunk
