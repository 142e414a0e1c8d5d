"""Decompression of streams, member by member."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

# The default limit of a window: that of the zstd command without --long.
MAX_WINDOW_BYTES = 128 * 1024 * 1024
_LARGEST_WINDOW_LOG = 31  # zstd's own limit: 2 GiB
LARGEST_WINDOW_BYTES = 1 << _LARGEST_WINDOW_LOG
_SMALLEST_WINDOW_LOG = 10
_XZ_OVERHEAD_BYTES = 16 * 1024 * 1024  # the memory of an xz decoder besides its dictionary
_WINDOW_HEADER_BYTES = 6  # of a zstd frame: magic, descriptor, window
_HEAD_BYTES = 16  # first bytes of a member that are kept for messages: the longest frame header
_ZLIB_WINDOW_BITS = 15  # the largest window of zlib
_GZIP_BITS = 16 + _ZLIB_WINDOW_BITS  # zlib's `wbits` for a gzip header
_DEFLATE_BITS = -_ZLIB_WINDOW_BITS  # zlib's `wbits` for no header at all
_ZLIB_OR_GZIP_BITS = 32 + _ZLIB_WINDOW_BITS  # zlib's `wbits` that detect the header


class CorruptArchiveError(Exception):
    """A compressed stream is damaged or truncated. The message is the library's."""


class WindowTooLargeError(CorruptArchiveError):
    """A compressed stream is sound, but needs a larger window than the limit allows."""


class MemberFormat(NamedTuple):
    """The rules of a format for members that follow each other in one stream."""

    name: str  # for messages
    codec: str  # a key of `_CODECS`
    magic: re.Pattern[bytes] | None = None  # matches the beginning of each member
    padding: int = 0  # NUL bytes may follow a member, in multiples of this number


class MemberDecoder:
    """Decompresses one stream, in chunks of any size. Call `finish` after the last.

    The readers of Python's `bz2` and `lzma` take an error at the beginning of a later member for
    garbage behind the stream, and end without an error. Here each byte after a member belongs to
    the next member or to its padding, or is an error.
    """

    def __init__(
        self, form: MemberFormat, output_bytes: int, max_window: int = MAX_WINDOW_BYTES
    ) -> None:
        self._form, self._output_bytes, self._max_window = form, output_bytes, max_window
        self._begin, self._damage = _CODECS[form.codec]()
        self._member: Any = None
        self._head = b""  # the first bytes of the member
        self._start = 0  # the byte of the compressed stream at which the member begins
        self._count = 0  # members so far
        self._read = 0  # bytes of the compressed stream so far
        self._padding = 0  # bytes of padding since the last member

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the output for `data`, up to `output_bytes` at a time.

        Raises CorruptArchiveError, also if a member needs a window above the limit.
        """
        self._read += len(data)
        while True:
            if self._member is None:
                data = self._skip_padding(data)
                if not data:
                    return
                self._member = self._begin(self._max_window)
                self._head, self._start = b"", self._read - len(data)
                self._count += 1
            if len(self._head) < _HEAD_BYTES:
                self._head += data[: _HEAD_BYTES - len(self._head)]
            try:
                output = self._member.decompress(data, self._output_bytes)
            except self._damage as error:
                raise self._error(str(error)) from error
            data = b""
            if output:
                yield output
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            elif self._member.needs_input:
                return

    def finish(self) -> None:
        """Raise CorruptArchiveError if the stream is incomplete."""
        if self._member is not None:
            raise self._error(f"cut short after {self._read:,} bytes")
        self._check_padding()

    def _skip_padding(self, data: bytes) -> bytes:
        if not self._form.padding or not self._count:
            return data
        rest = data.lstrip(b"\0")
        self._padding += len(data) - len(rest)
        if rest:
            self._check_padding()
            self._padding = 0
        return rest

    def _check_padding(self) -> None:
        form = self._form
        if form.padding and self._padding % form.padding:
            raise CorruptArchiveError(
                f"{form.name}: {self._padding:,} NUL bytes after a member are no padding, which is "
                f"a multiple of {form.padding}"
            )

    def _error(self, message: str) -> CorruptArchiveError:
        """Return the error of the current member."""
        name, magic = self._form.name, self._form.magic
        if self._count > 1 and magic is not None and not magic.match(self._head):
            return CorruptArchiveError(
                f"{name}: a member is complete, but the bytes after it are no {name} data: "
                f"{self._head[:8]!r} at byte {self._start:,} of the file"
            )
        if "too much memory" in message or "Memory usage limit" in message:
            size = _zstd_window(self._head) if self._form.codec == "zstd" else None
            needed = "a larger window" if size is None else f"a window of {size:,} bytes"
            return WindowTooLargeError(
                f"{name}: needs {needed}; the limit is {self._max_window:,} (--max-window)"
            )
        return CorruptArchiveError(f"{name}: {message}")


def _zstd_window(head: bytes) -> int | None:
    """Return the window of a zstd frame by its header (RFC 8878, 3.1.1.1), None without one."""
    if len(head) < _WINDOW_HEADER_BYTES or head[4] & 0b10_0000:  # a single segment has no window
        return None
    log, eighths = 10 + (head[5] >> 3), head[5] & 0b111
    return (1 << log) + (1 << log) // 8 * eighths


class _ZlibMember:
    """A zlib stream with the interface of the others: it keeps its unused input."""

    def __init__(self, bits: int) -> None:
        self._stream = compression_library("zlib").decompressobj(bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""
        ended: bool = self._stream.eof
        return ended

    @property
    def unused_data(self) -> bytes:
        """The input after the member."""
        unused: bytes = self._stream.unused_data
        return unused

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return the next output, up to `most` bytes."""
        output: bytes = self._stream.decompress(self._stream.unconsumed_tail + data, most)
        self.needs_input = not self._stream.unconsumed_tail and len(output) < most
        return output


class _BrotliMember:
    """A brotli stream with the interface of the others. Nothing may follow it."""

    unused_data = b""

    def __init__(self) -> None:
        self._stream = compression_library("brotli").Decompressor()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ended: bool = self._stream.is_finished()
        return ended

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return the next output: at most slightly more than `most` bytes."""
        output: bytes = self._stream.process(data, output_buffer_limit=most)
        self.needs_input = len(output) < most
        return output


# For each codec: a function that begins a member, given the largest window, and the exceptions for
# damaged data.
_Codec = tuple["Callable[[int], Any]", "type[Exception] | tuple[type[Exception], ...]"]


def _zlib_codec(bits: int) -> _Codec:
    return (lambda _: _ZlibMember(bits)), compression_library("zlib").error


def _bz2_codec() -> _Codec:
    # The library has no exception of its own.
    return (lambda _: compression_library("bz2").BZ2Decompressor()), (OSError, ValueError)


def _lzma_codec(form: str) -> _Codec:
    lzma = compression_library("lzma")

    def begin(max_window: int) -> Any:
        return lzma.LZMADecompressor(getattr(lzma, form), max_window + _XZ_OVERHEAD_BYTES)

    return begin, lzma.LZMAError


def _zstd_codec() -> _Codec:
    zstd = compression_library("zstd")

    def begin(max_window: int) -> Any:
        log = max(_SMALLEST_WINDOW_LOG, min(_LARGEST_WINDOW_LOG, max_window.bit_length() - 1))
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: log})

    return begin, zstd.ZstdError


def _brotli_codec() -> _Codec:
    return (lambda _: _BrotliMember()), compression_library("brotli").error


_CODECS: dict[str, Callable[[], _Codec]] = {
    "gzip": lambda: _zlib_codec(_GZIP_BITS),
    "zlib": lambda: _zlib_codec(_ZLIB_OR_GZIP_BITS),
    "bz2": _bz2_codec,
    "deflate": lambda: _zlib_codec(_DEFLATE_BITS),
    "xz": lambda: _lzma_codec("FORMAT_XZ"),
    "lzma": lambda: _lzma_codec("FORMAT_ALONE"),
    "zstd": _zstd_codec,
    "brotli": _brotli_codec,
}


def compression_library(name: str) -> Any:
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
