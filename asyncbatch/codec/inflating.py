"""Compressed streams that come in pieces from elsewhere, undone in bounded memory."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.compression import ZSTD_MODULE, CorruptArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator

_EITHER_HEADER = 47  # zlib's word for a gzip or zlib header, with the largest window
_PIECE = 256 * 1024
_KNOWN = {"gzip": "zlib", "deflate": "zlib", "br": "brotli", "zstd": ZSTD_MODULE}
"""The library that undoes a coding."""


def encodings() -> tuple[str, ...]:
    """Return the content codings of HTTP that are worth asking for; `deflate` is known too."""
    return ("gzip", "br", "zstd") if find_spec("brotli") else ("gzip", "zstd")


class Inflater:
    """Undoes one content coding, however the stream is cut; members may follow each other.

    Raises ValueError if it does not know the coding.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = {"x-gzip": "gzip"}.get(encoding, encoding)
        if self._encoding not in (*encodings(), "deflate"):
            raise ValueError(f"{encoding!r} is not among the codings that are understood")
        library: Any = importlib.import_module(_KNOWN[self._encoding])
        self._damage: type[Exception] = getattr(library, "ZstdError", None) or library.error
        self._library = library
        self._stream: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds, some 256 KiB at a time. Raises CorruptArchiveError."""
        while data or self._stream is not None:
            if self._stream is None or self._stream.eof:
                if not data:
                    return
                self._stream = self._begin()
            try:
                piece = self._stream.decompress(data, _PIECE)
            except self._damage as error:
                raise CorruptArchiveError(f"{self._encoding}: {error}") from error
            if piece:
                yield piece
            data = self._rest()
            if not data and len(piece) < _PIECE:
                return

    def finish(self) -> None:
        """Raise CorruptArchiveError if the stream was cut."""
        if self._stream is not None and not self._stream.eof:
            raise CorruptArchiveError(f"{self._encoding}: cut short")

    def _begin(self) -> Any:  # noqa: ANN401 - the libraries' objects share no type
        if self._encoding == "zstd":
            return self._library.ZstdDecompressor()
        if self._encoding == "br":
            return _Brotli(self._library.Decompressor())
        return self._library.decompressobj(_EITHER_HEADER)

    def _rest(self) -> bytes:
        """Return what of the input was not used yet."""
        rest: bytes = b""
        if self._stream.eof:
            rest = self._stream.unused_data
        elif self._encoding not in ("br", "zstd"):  # which keep their input themselves
            rest = self._stream.unconsumed_tail
        return rest


class _Brotli:
    """A stream of brotli with the words of the others. Nothing may follow it."""

    unused_data = b""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - the library ships no types
        self._stream = stream

    @property
    def eof(self) -> bool:
        """Whether the stream is at its end."""
        ended: bool = self._stream.is_finished()
        return ended

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return what comes next: somewhat more than `most` bytes if there are so many."""
        piece: bytes = self._stream.process(data, output_buffer_limit=most)
        return piece
