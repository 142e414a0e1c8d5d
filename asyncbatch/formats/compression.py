"""Compression formats of files and of HTTP responses."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class CorruptArchiveError(Exception):
    """A compressed stream is damaged or truncated. The message is the library's."""


class Compression(NamedTuple):
    """A compression format of files."""

    name: str
    suffix: str  # the ending of file names
    magic: bytes  # the first bytes
    module: str  # the library, by its name in `_library`
    error: str | None = None  # the library's own exception, if it has one
    # for the library's `compress`
    options: dict[str, Any] = {}  # noqa: RUF012 - a default of a NamedTuple that is never changed

    def chunks(self, raw: IO[bytes], size: int) -> Iterator[bytes]:
        """Yield the decompressed content of all members, up to `size` bytes at a time.

        Raises CorruptArchiveError, and the OSErrors of reading `raw`.
        """
        library = _library(self.module)
        damage = [EOFError, _library("zlib").error]
        if self.error is not None:
            damage.append(getattr(library, self.error))
        stream: IO[bytes] = library.open(raw, "rb")
        try:
            while chunk := stream.read(size):
                yield chunk
        except tuple(damage) as error:
            raise self._corrupt(error) from error
        except OSError as error:
            if error.errno is not None:  # an error of the disk, not of the format
                raise
            raise self._corrupt(error) from error

    def compress(self, data: bytes) -> bytes:
        """Return `data` as one member. Concatenated members are a valid stream."""
        library = _library(self.module)
        compressed: bytes = library.compress(data, **self.options)
        return compressed

    def _corrupt(self, error: Exception) -> CorruptArchiveError:
        return CorruptArchiveError(f"{self.name}: {error}")


def _library(name: str) -> Any:
    """Return a compression library, imported on first use."""
    match name:
        case "gzip":
            import gzip

            return gzip
        case "zlib":
            import zlib

            return zlib
        case "bz2":
            import bz2

            return bz2
        case "lzma":
            import lzma

            return lzma
        case "brotli":
            import brotli

            return brotli
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


_FORMATS = (
    # Level 9, the default, takes twice the time of level 6 to save 1 %. Without a time stamp,
    # each run writes the same bytes.
    Compression("gzip", ".gz", b"\x1f\x8b", "gzip", options={"compresslevel": 6, "mtime": 0}),
    Compression("bzip2", ".bz2", b"BZh", "bz2"),
    Compression("xz", ".xz", b"\xfd7zXZ\x00", "lzma", "LZMAError"),
    Compression("zstd", ".zst", b"\x28\xb5\x2f\xfd", "zstd", "ZstdError"),
)
# file name endings of the supported formats
SUFFIXES = tuple(form.suffix for form in _FORMATS)
_MAGICS = tuple(form.magic for form in _FORMATS)


def detect_compression(head: bytes) -> Compression | None:
    """Return the format of a stream that begins with `head`, None for plain data."""
    if not head.startswith(_MAGICS):
        return None
    return next(form for form in _FORMATS if head.startswith(form.magic))


def compression_by_name(path: str) -> Compression | None:
    """Return the format of a file name's ending, or None."""
    return next((form for form in _FORMATS if path.lower().endswith(form.suffix)), None)


def check_magic_complete(head: bytes, name: str) -> None:
    """Raise CorruptArchiveError if a file ends within its magic bytes.

    `head` is the whole file; the ending of its name determines the format.
    """
    for form in _FORMATS:
        if name.endswith(form.suffix) and form.magic.startswith(head) and head != form.magic:
            raise CorruptArchiveError(f"{form.name}: cut short after {len(head)} bytes")


_ZLIB_OR_GZIP = 47  # zlib's `wbits`: 32 (detect a gzip or zlib header) + 15 (largest window)
_OUTPUT_BYTES = 256 * 1024
# the library for each content coding
_ENCODING_LIBRARIES = {"gzip": "zlib", "deflate": "zlib", "br": "brotli", "zstd": "zstd"}


def accepted_encodings() -> tuple[str, ...]:
    """Return the HTTP content codings to request. `deflate` is supported too."""
    return ("gzip", "br", "zstd") if find_spec("brotli") else ("gzip", "zstd")


class Decompressor:
    """Decompresses one HTTP content coding, in chunks of any size.

    A stream may have several members. Raises ValueError for an unknown coding.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = {"x-gzip": "gzip"}.get(encoding, encoding)
        if self._encoding not in (*accepted_encodings(), "deflate"):
            raise ValueError(f"{encoding!r} is not a supported content coding")
        library = _library(_ENCODING_LIBRARIES[self._encoding])
        self._damage: type[Exception] = getattr(library, "ZstdError", None) or library.error
        self._library = library
        self._stream: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the output for `data`, some 256 KiB at a time. Raises CorruptArchiveError."""
        while data or self._stream is not None:
            if self._stream is None or self._stream.eof:
                if not data:
                    return
                self._stream = self._begin()
            try:
                output = self._stream.decompress(data, _OUTPUT_BYTES)
            except self._damage as error:
                raise CorruptArchiveError(f"{self._encoding}: {error}") from error
            if output:
                yield output
            data = self._rest()
            if not data and len(output) < _OUTPUT_BYTES:
                return

    def finish(self) -> None:
        """Raise CorruptArchiveError if the stream is incomplete."""
        if self._stream is not None and not self._stream.eof:
            raise CorruptArchiveError(f"{self._encoding}: cut short")

    def _begin(self) -> Any:
        if self._encoding == "zstd":
            return self._library.ZstdDecompressor()
        if self._encoding == "br":
            return _BrotliDecompressor(self._library.Decompressor())
        return self._library.decompressobj(_ZLIB_OR_GZIP)

    def _rest(self) -> bytes:
        """Return the unused input."""
        rest: bytes = b""
        if self._stream.eof:
            rest = self._stream.unused_data
        elif self._encoding not in ("br", "zstd"):  # brotli and zstd keep unused input themselves
            rest = self._stream.unconsumed_tail
        return rest


class _BrotliDecompressor:
    """A brotli stream with the interface of the zlib one. It has only one member."""

    unused_data = b""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ended: bool = self._stream.is_finished()
        return ended

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return the next output: at most slightly more than `most` bytes."""
        output: bytes = self._stream.process(data, output_buffer_limit=most)
        return output
