"""Compressed streams, told by their first bytes: names may lie, and no JSON text begins so."""

from __future__ import annotations

import importlib
import sys
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class CorruptArchiveError(Exception):
    """A compressed stream is damaged or cut short; the message says what its library found."""


class Compression(NamedTuple):
    """A format: its name, file name ending and first bytes, its library and what that raises.

    `options` are for the library's `compress`.
    """

    name: str
    suffix: str
    magic: bytes
    module: str
    error: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - of a tuple, and nobody changes it

    def chunks(self, raw: IO[bytes], size: int) -> Iterator[bytes]:
        """Yield the decompressed content of all members of `raw`, up to `size` bytes at a time.

        Raises CorruptArchiveError; OSError as reading `raw` raises it.
        """
        library: Any = importlib.import_module(self.module)
        damage = [EOFError, importlib.import_module("zlib").error]
        if self.error is not None:
            damage.append(getattr(library, self.error))
        stream: IO[bytes] = library.open(raw, "rb")
        try:
            while chunk := stream.read(size):
                yield chunk
        except tuple(damage) as error:
            raise self._corrupt(error) from error
        except OSError as error:
            if error.errno is not None:  # the disk's complaint, not the format's
                raise
            raise self._corrupt(error) from error

    def compress(self, data: bytes) -> bytes:
        """Return `data` as a member of its own: members one after another are a stream."""
        library: Any = importlib.import_module(self.module)
        compressed: bytes = library.compress(data, **self.options)
        return compressed

    def _corrupt(self, error: Exception) -> CorruptArchiveError:
        return CorruptArchiveError(f"{self.name}: {error}")


ZSTD_MODULE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
"""The library of zstd, by the version of Python."""
_FORMATS = (
    # Level 9, the default, takes twice the time of 6 for 1%; a time stamp would make each run's
    # output another.
    Compression("gzip", ".gz", b"\x1f\x8b", "gzip", options={"compresslevel": 6, "mtime": 0}),
    Compression("bzip2", ".bz2", b"BZh", "bz2"),
    Compression("xz", ".xz", b"\xfd7zXZ\x00", "lzma", "LZMAError"),
    Compression("zstd", ".zst", b"\x28\xb5\x2f\xfd", ZSTD_MODULE, "ZstdError"),
)
SUFFIXES = tuple(form.suffix for form in _FORMATS)
"""File name endings of the formats that are read."""
_MAGICS = tuple(form.magic for form in _FORMATS)


def detect(head: bytes) -> Compression | None:
    """Return the format of a stream that begins with `head`, or None if it is not compressed."""
    if not head.startswith(_MAGICS):
        return None
    return next(form for form in _FORMATS if head.startswith(form.magic))


def named(path: str) -> Compression | None:
    """Return the format that a file's name promises, if any."""
    return next((form for form in _FORMATS if path.lower().endswith(form.suffix)), None)


def check_not_cut(head: bytes, name: str) -> None:
    """Raise CorruptArchiveError if a file of nothing but `head` is cut within its first bytes.

    That is one whose name promises a format and that holds less than its magic number.
    """
    for form in _FORMATS:
        if name.endswith(form.suffix) and form.magic.startswith(head) and head != form.magic:
            raise CorruptArchiveError(f"{form.name}: cut short after {len(head)} bytes")
