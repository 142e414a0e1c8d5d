"""Decode and encode JSON."""

from __future__ import annotations

import sys

from msgspec import Raw
from msgspec.json import Decoder, Encoder

decode = Decoder().decode
"""Return the value of a JSON text that `codec.judge` has found good, but without a byte order
mark. (msgspec: as fast as orjson here, which makes floats of integers beyond 64 bits.)"""

decode_array = Decoder(list[Raw]).decode
"""Return the texts of an array's elements. Raises msgspec.ValidationError for another value."""


_ENCODER = Encoder()

encode = _ENCODER.encode
"""Return a plain JSON value as JSON text. (orjson refuses integers beyond 64 bits and nesting
beyond 254 levels, and takes 2.8 us for a small object where msgspec takes 0.4.)"""

encode_lines = _ENCODER.encode_lines
"""Return plain JSON values as JSON Lines, each ended by LF."""


_LIMIT = 4000
"""Python's own default is 1,000 calls, C functions included; a value of `grammar.MAX_DEPTH`
levels takes as many in msgspec, on top of what is running, and a user's function some more."""


def allow_deep_nesting() -> None:
    """Let this interpreter recurse as deep as the values that we accept; to be called once."""
    if sys.getrecursionlimit() < _LIMIT:
        sys.setrecursionlimit(_LIMIT)
