"""Archives: the members of zip and tar files, and the bytes of each member.

A member's bytes are checked: against the size and the CRC that a zip has of it, and against the end
of the file. The readers of the standard library end without an error at some damage of a tar, and
unpack a block of bzip2 or LZMA without a limit; so they read only the directories.
"""

from __future__ import annotations

import io
import stat
import struct
from typing import IO, TYPE_CHECKING, Protocol

from asyncbatch.core.paths import MemberInfo
from asyncbatch.formats.compression import detect_compression
from asyncbatch.formats.detect import bounded
from asyncbatch.formats.members import (
    MAX_WINDOW_BYTES,
    CorruptArchiveError,
    MemberDecoder,
    MemberFormat,
    compression_library,
)

if TYPE_CHECKING:
    import tarfile
    import zipfile
    from collections.abc import Callable, Iterator

    # Returns up to a number of bytes of the archive, from an offset.
    ReadAt = Callable[[int, int], bytes]

MEMBER_CHUNK_BYTES = 256 * 1024  # of a member's content
# A header of a tar may have names and attributes of any length. Real ones have some kilobytes.
_MAX_HEADER_BYTES = 4 * 1024 * 1024


def zip_members(file: IO[bytes], archive: MemberInfo) -> Iterator[tuple[str, MemberInfo]]:
    """Yield the name of each member of a zip, and its place. Names of folders end with a slash.

    `archive` has the fields that all members share. Raises CorruptArchiveError and OSError.
    """
    import zipfile

    try:
        directory = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        reason = str(error)[:1].lower() + str(error)[1:]
        raise CorruptArchiveError(f"zip: {reason}: damaged, cut short, or no zip") from error
    _check_end(file, len(directory))
    directory.reverse()
    while directory:
        entry = directory.pop()
        yield entry.filename, MemberInfo(
            archive.archive, archive.changed_ns, "zip", entry.file_size, entry.header_offset,
            entry.compress_size, entry.compress_type, entry.CRC,
            "{}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*entry.date_time), _zip_problem(entry),
        )  # fmt: skip


_END_BYTES = 22 + 0xFFFF  # the record at the end of a zip, with the longest comment
_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\x05\x06"
_MANY = 0xFFFF  # the number of members of a large zip, which stands elsewhere
_FAR = 0xFFFFFFFF  # the place of the directory of a large zip, which stands elsewhere


def _check_end(file: IO[bytes], count: int) -> None:
    """Raise CorruptArchiveError if a zip has members that the standard library does not list.

    It takes a damaged entry for a long name, and does not miss the next one. It ignores another
    archive before this one, and what follows this one.
    """
    size = file.seek(0, io.SEEK_END)
    tail, start = _tail(file, size)
    at = tail.rfind(_END_MARK)
    *_, told, length, offset, comment = _END.unpack_from(tail, at)
    if told not in (_MANY, count & _MANY):
        raise CorruptArchiveError(f"zip: lists {count:,} members, but says that it has {told:,}")
    end = at + _END.size + comment
    if tail[end:].strip(b"\0"):  # some programs pad
        raise CorruptArchiveError(
            f"zip: {size - start - end:,} bytes follow the end: is it damaged, or are these two?"
        )
    before = start + at - length - offset  # bytes, for instance a program that unpacks the archive
    if offset != _FAR and before > 0:
        tail, _ = _tail(file, before)
        at = tail.rfind(_END_MARK)
        if at >= 0 and at + _END.size <= len(tail):
            *_, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                raise CorruptArchiveError(
                    f"zip: another archive is in its first {before:,} bytes: give each its own file"
                )


def _tail(file: IO[bytes], end: int) -> tuple[bytes, int]:
    """Return the bytes before `end` that may have an end record, and their offset."""
    start = max(0, end - _END_BYTES)
    file.seek(start)
    return file.read(end - start), start


_FLAG_ENCRYPTED = 0x1
_SYSTEM_UNIX = 3
# For the number of a zip's compression: the key of its codec, None for bytes as they are.
_ZIP_CODECS = {0: None, 8: "deflate", 12: "bz2", 14: "lzma", 20: "zstd", 93: "zstd", 95: "xz"}


def _zip_problem(entry: zipfile.ZipInfo) -> Exception | None:
    import zipfile

    if entry.flag_bits & _FLAG_ENCRYPTED:
        return OSError("is encrypted in the archive: unpack it with its password")
    if entry.compress_type not in _ZIP_CODECS:
        names = zipfile.compressor_names  # type: ignore[attr-defined]  # typeshed lacks it
        method = f"{names.get(entry.compress_type, 'unknown')}, method {entry.compress_type}"
        return OSError(f"has a compression that is not read ({method}): unpack it")
    mode = entry.external_attr >> 16 if entry.create_system == _SYSTEM_UNIX else 0
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a device or a pipe"
        return OSError(f"is {kind} in the archive, not a file")
    return None


_LOCAL_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_LZMA_HEADER_BYTES = 4  # before the properties: a version, and their length
_LZMA_PROPERTIES_BYTES = 5
_FLAG_LZMA_END = 0x2  # of a member: an end marker follows the data


def read_zip_member(
    read: ReadAt, info: MemberInfo, max_window: int = MAX_WINDOW_BYTES
) -> Iterator[bytes]:
    """Yield the content of a member of a zip. The last chunk is yielded when all is checked.

    Raises CorruptArchiveError, and the errors of `read`.
    """
    header = read(_LOCAL_HEADER_BYTES, info.offset)
    if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_MAGIC):
        raise CorruptArchiveError(f"zip: no member begins at byte {info.offset:,} of the archive")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    pieces = _stored_pieces(read, info, info.offset + _LOCAL_HEADER_BYTES + lengths)
    codec = _ZIP_CODECS[info.method]
    if codec == "lzma":
        has_end = int.from_bytes(header[6:8], "little") & _FLAG_LZMA_END
        pieces = _as_lzma_file(pieces, -1 if has_end else info.size)
    if codec is not None:
        pieces = _decoded(pieces, MemberFormat("zip", codec), max_window)
    crc32 = compression_library("zlib").crc32
    crc = size = 0
    last = b""
    for piece in pieces:
        size += len(piece)
        if size > info.size:
            break
        crc = crc32(piece, crc)
        if last:
            yield last
        last = piece
    if size != info.size:
        relation = "more" if size > info.size else "fewer"
        raise CorruptArchiveError(f"zip: has {relation} bytes than the {info.size:,} of its entry")
    if crc != info.crc:
        raise CorruptArchiveError("zip: the content does not have the CRC of its entry")
    if last:
        yield last


def _stored_pieces(read: ReadAt, info: MemberInfo, at: int) -> Iterator[bytes]:
    end = at + info.stored_size
    while at < end:
        piece = read(min(MEMBER_CHUNK_BYTES, end - at), at)
        if not piece:
            raise CorruptArchiveError(f"zip: the archive is cut short at byte {at:,}")
        at += len(piece)
        yield piece


def _as_lzma_file(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield LZMA data of a zip with the header of a `.lzma` file. `size` -1: an end marker."""
    first = next(pieces, b"")
    properties = _LZMA_HEADER_BYTES + _LZMA_PROPERTIES_BYTES
    yield first[_LZMA_HEADER_BYTES:properties] + size.to_bytes(8, "little", signed=True)
    yield first[properties:]
    yield from pieces


def _decoded(pieces: Iterator[bytes], form: MemberFormat, max_window: int) -> Iterator[bytes]:
    decoder = MemberDecoder(form, MEMBER_CHUNK_BYTES, max_window)
    for piece in pieces:
        yield from decoder.feed(piece)
    decoder.finish()


class TarStream(Protocol):
    """The unpacked bytes of a tar, from which headers are read."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; fewer only at the end."""
        ...

    def seek(self, position: int, /) -> int:
        """Move to a later position."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


class PlainTar(io.BufferedReader):
    """A tar file that is not compressed."""

    def read(self, size: int | None = -1, /) -> bytes:
        _check_header_size(size)
        return super().read(size)


class PackedTar:
    """A compressed tar, unpacked from its start to its end. Owns `file`. For one thread.

    Raises CorruptArchiveError, TooLargeError after `max_unpacked` bytes, and OSError.
    """

    def __init__(self, file: IO[bytes], max_unpacked: int, max_window: int | None) -> None:
        head = file.read(_MAGIC_BYTES)
        file.seek(0)
        form = detect_compression(head)
        if form is None:
            raise CorruptArchiveError("tar: is not compressed, although its name says so")
        chunks = form.chunks(file, MEMBER_CHUNK_BYTES, max_window or MAX_WINDOW_BYTES)
        self._file, self._chunks = file, bounded(chunks, max_unpacked, form.name)
        self._rest = memoryview(b"")
        self._position = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, /) -> int:
        while self._position < position and self._fill():
            self._take(position - self._position)
        return self._position

    def read(self, size: int, /) -> bytes:
        _check_header_size(size)
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes, or all up to the end."""
        while size and self._fill():
            piece = bytes(self._take(size))
            size -= len(piece)
            yield piece

    def _fill(self) -> bool:
        """Unpack the next bytes if none are left; return whether there are any."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        return bool(self._rest)

    def _take(self, most: int) -> memoryview:
        taken, self._rest = self._rest[:most], self._rest[most:]
        self._position += len(taken)
        return taken


_MAGIC_BYTES = 8  # enough to detect a compression


def _check_header_size(size: int | None) -> None:
    if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
        raise CorruptArchiveError(f"tar: a header of {size:,} bytes" if size else "tar: no header")


def tar_members(stream: TarStream, archive: MemberInfo) -> Iterator[tuple[str, MemberInfo]]:
    """Yield the name of each member of a tar, and its place. Names of folders end with a slash.

    `archive` has the fields that all members share. Raises CorruptArchiveError, also at the end if
    the end mark is missing or data follows it, and the errors of `stream`.
    """
    import tarfile

    end = 0
    try:
        # The standard library's loop takes a damaged header for the end.
        reader = tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8")  # type: ignore[arg-type]  # it only reads, seeks and tells
        entry = reader.firstmember  # type: ignore[attr-defined]  # the first header was read
        while entry is not None:
            if entry.size < 0 or reader.offset <= end:
                raise tarfile.ReadError("invalid size")
            name = entry.name + "/" if entry.isdir() else entry.name
            yield name, MemberInfo(
                archive.archive, archive.changed_ns, archive.form, entry.size, entry.offset_data,
                problem=_tar_problem(entry),
            )  # fmt: skip
            end = reader.offset
            if stream.seek(end) < end:
                raise tarfile.ReadError("cut short")
            entry = tarfile.TarInfo.fromtarfile(reader)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
        pass
    except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
        raise CorruptArchiveError("tar: has no end mark, so it is probably cut short") from None
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise CorruptArchiveError(f"tar: {error} (at byte {end:,}, or after it)") from error
    while rest := stream.read(MEMBER_CHUNK_BYTES):  # which checks a compressed file to its end
        if rest.strip(b"\0"):
            raise CorruptArchiveError("tar: more data follows its end mark, as of a second archive")
    if stream.tell() % tarfile.BLOCKSIZE:
        raise CorruptArchiveError(f"tar: {stream.tell():,} bytes are no whole number of blocks")


def _tar_problem(entry: tarfile.TarInfo) -> Exception | None:
    if entry.issparse():
        return OSError("is a sparse file in the archive, which is not read: unpack it")
    if entry.isreg() or entry.isdir():
        return None
    if entry.issym():
        return OSError("is a symbolic link in the archive, not a file")
    if entry.islnk():
        return OSError(f"is a hard link in the archive, to {entry.linkname!r}, not a file")
    return OSError("is a device or a pipe in the archive, not a file")


def read_tar_member(read: ReadAt, info: MemberInfo) -> Iterator[bytes]:
    """Yield the content of a member of a tar that is not compressed.

    Raises CorruptArchiveError, and the errors of `read`.
    """
    at, end = info.offset, info.offset + info.size
    while at < end:
        piece = read(min(MEMBER_CHUNK_BYTES, end - at), at)
        if not piece:
            raise CorruptArchiveError(f"tar: the archive is cut short at byte {at:,}")
        at += len(piece)
        yield piece


def read_packed_member(stream: PackedTar, info: MemberInfo) -> Iterator[bytes]:
    """Yield the content of a member of a compressed tar that `stream` has not passed.

    Raises CorruptArchiveError, and the errors of `stream`.
    """
    stream.seek(info.offset)
    left = info.size
    for piece in stream.pieces(left):
        left -= len(piece)
        yield piece
    if left:
        raise CorruptArchiveError(f"tar: the archive is cut short at byte {stream.tell():,}")
