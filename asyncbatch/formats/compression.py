"""Compression formats of files and of HTTP responses."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from asyncbatch.formats.members import (
    MAX_WINDOW_BYTES,
    CorruptArchiveError,
    MemberDecoder,
    MemberFormat,
    compression_library,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_INPUT_BYTES = 64 * 1024  # compressed bytes of one read


class Compression(NamedTuple):
    """A compression format of files."""

    name: str
    suffix: str  # the ending of file names
    magic: bytes  # the first bytes of a member
    module: str  # the library that compresses, by its name in `compression_library`
    members: MemberFormat
    # for the library's `compress`
    options: dict[str, Any] = {}  # noqa: RUF012 - a default of a NamedTuple that is never changed

    def chunks(
        self, raw: IO[bytes], size: int, max_window: int = MAX_WINDOW_BYTES
    ) -> Iterator[bytes]:
        """Yield the decompressed content of all members, about `size` bytes at a time.

        `max_window` limits the memory of the decoder, in bytes. Raises CorruptArchiveError, after
        the content before the damage, and the OSErrors of reading `raw`.
        """
        pieces: list[bytes] = []
        length = 0
        try:
            for piece in self._pieces(raw, size, max_window):
                pieces.append(piece)
                length += len(piece)
                if length >= size:
                    yield b"".join(pieces)
                    pieces, length = [], 0
        except CorruptArchiveError:
            if pieces:
                yield b"".join(pieces)
            raise
        if pieces:
            yield b"".join(pieces)

    def compress(self, data: bytes) -> bytes:
        """Return `data` as one member. Concatenated members are a valid stream."""
        library = compression_library(self.module)
        options = self.options
        if self.module == "zstd":
            # Without it, one changed bit in four passes unnoticed. The zstd command writes it too.
            options = {"options": {library.CompressionParameter.checksum_flag: 1}}
        compressed: bytes = library.compress(data, **options)
        return compressed

    def _pieces(self, raw: IO[bytes], size: int, max_window: int) -> Iterator[bytes]:
        decoder = MemberDecoder(self.members, size, max_window)
        while data := raw.read(_INPUT_BYTES):
            yield from decoder.feed(data)
        decoder.finish()


# A zstd file may begin with skippable frames, as those of pzstd do (RFC 8878, 3.1.2).
_ZSTD_MAGIC = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
_FORMATS = (
    # Level 9, the default, takes twice the time of level 6 to save 1 %. Without a time stamp,
    # each run writes the same bytes.
    Compression(
        "gzip",
        ".gz",
        b"\x1f\x8b",
        "gzip",
        MemberFormat("gzip", "gzip", re.compile(rb"\x1f\x8b"), padding=1),
        options={"compresslevel": 6, "mtime": 0},
    ),
    Compression(
        "bzip2", ".bz2", b"BZh", "bz2", MemberFormat("bzip2", "bz2", re.compile(rb"BZh[1-9]"))
    ),
    Compression(
        "xz",
        ".xz",
        b"\xfd7zXZ\x00",
        "lzma",
        # The padding is that of the format's specification, 2.2.
        MemberFormat("xz", "xz", re.compile(rb"\xfd7zXZ\x00"), padding=4),
    ),
    Compression(
        "zstd", ".zst", b"\x28\xb5\x2f\xfd", "zstd", MemberFormat("zstd", "zstd", _ZSTD_MAGIC)
    ),
)
# file name endings of the supported formats
SUFFIXES = tuple(form.suffix for form in _FORMATS)
_MAGICS = tuple(form.magic for form in _FORMATS)


def detect_compression(head: bytes) -> Compression | None:
    """Return the format of a stream that begins with `head`, None for plain data."""
    if head.startswith(_MAGICS):
        return next(form for form in _FORMATS if head.startswith(form.magic))
    return _FORMATS[-1] if _ZSTD_MAGIC.match(head) else None


def compression_by_name(path: str) -> Compression | None:
    """Return the format of a file name's ending, or None."""
    return next((form for form in _FORMATS if path.lower().endswith(form.suffix)), None)


_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*(?:[\[{\"\-0-9tfn]|$)")
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]")
_START_BYTES = 16  # first bytes of a file that tell plain JSON from other data


def check_not_compressed(head: bytes, name: str) -> None:
    """Raise CorruptArchiveError for a file that should be compressed and is not even JSON.

    `head` begins the file, and is all of it if it is short; the ending of its name determines the
    format. A file may hold plain JSON whatever its name is.
    """
    form = compression_by_name(name)
    if form is None:
        return
    if form.magic.startswith(head) and head != form.magic:
        raise CorruptArchiveError(f"{form.name}: cut short after {len(head)} bytes")
    start = head[:_START_BYTES]
    if not _JSON_START.match(start) or _CONTROL.search(start):
        raise CorruptArchiveError(
            f"{form.name}: begins neither as {form.name} nor as JSON, but with {head[:8]!r}"
        )


_OUTPUT_BYTES = 256 * 1024
_ENCODINGS = {
    "gzip": MemberFormat("gzip", "zlib"),
    "deflate": MemberFormat("deflate", "zlib"),
    "br": MemberFormat("br", "brotli"),
    "zstd": MemberFormat("zstd", "zstd"),
}


def accepted_encodings() -> tuple[str, ...]:
    """Return the HTTP content codings to request. `deflate` is supported too."""
    return ("gzip", "br", "zstd") if find_spec("brotli") else ("gzip", "zstd")


class Decompressor:
    """Decompresses one HTTP content coding, in chunks of any size.

    A stream may have several members. Raises ValueError for an unknown coding.
    """

    def __init__(self, encoding: str) -> None:
        encoding = {"x-gzip": "gzip"}.get(encoding, encoding)
        if encoding not in (*accepted_encodings(), "deflate"):
            raise ValueError(f"{encoding!r} is not a supported content coding")
        self._decoder = MemberDecoder(_ENCODINGS[encoding], _OUTPUT_BYTES)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the output for `data`, some 256 KiB at a time. Raises CorruptArchiveError."""
        return self._decoder.feed(data)

    def finish(self) -> None:
        """Raise CorruptArchiveError if the stream is incomplete."""
        self._decoder.finish()
