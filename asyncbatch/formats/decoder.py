"""Decoding and encoding of JSON."""

from __future__ import annotations

import sys
from codecs import utf_8_decode
from typing import TYPE_CHECKING

from msgspec import Raw
from msgspec.json import Decoder, Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncbatch.core.records import Json

# Decodes a JSON text that `formats.validator` accepted, without a byte order mark. msgspec is as
# fast as orjson here, and keeps integers beyond 64 bits, which orjson turns into floats.
decode: Callable[[bytes | memoryview | str], Json] = Decoder().decode

# Returns the texts of an array's elements. Raises msgspec.ValidationError for another value.
decode_array: Callable[[bytes | memoryview | str], list[Raw]] = Decoder(list[Raw]).decode


_ENCODER = Encoder()

# Encodes a JSON value. msgspec takes 0.4 us for a small object where orjson takes 2.8, and orjson
# refuses integers beyond 64 bits and nesting beyond 254 levels.
encode: Callable[[Json], bytes] = _ENCODER.encode

# Encodes JSON values as JSON Lines, each ended by LF.
encode_lines: Callable[[Iterable[Json]], bytes] = _ENCODER.encode_lines


# A string of a piece of this size fits in memory that is reused, and in the processor's cache: that
# of a text of 1 MB, of which the system gives and takes the memory each time, takes four times as
# long.
_PIECE_BYTES = 64 * 1024


def check_utf8(text: bytes) -> None:
    """Raise UnicodeDecodeError if a text is not UTF-8."""
    if text.isascii():
        return
    view, start = memoryview(text), 0
    while start < len(view):
        end = start + _PIECE_BYTES
        # A character that a piece cuts off is left to the next piece.
        start += utf_8_decode(view[start:end], "strict", end >= len(view))[1]


# Python's default is 1,000 calls, C functions included. A value of `grammar.MAX_DEPTH` levels takes
# as many in msgspec, on top of the running calls and those of a user's function.
_RECURSION_LIMIT = 4000


def allow_deep_nesting() -> None:
    """Raise the recursion limit for values of `grammar.MAX_DEPTH` levels."""
    if sys.getrecursionlimit() < _RECURSION_LIMIT:
        sys.setrecursionlimit(_RECURSION_LIMIT)
