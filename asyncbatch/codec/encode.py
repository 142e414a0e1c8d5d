"""Values to JSON text: compact, in UTF-8, numbers as short as they can be read back."""

from __future__ import annotations

from msgspec.json import Encoder

_ENCODER = Encoder()

encode = _ENCODER.encode
"""Return a plain JSON value as JSON text. (orjson refuses integers beyond 64 bits and nesting
beyond 254 levels, and takes 2.8 us for a small object where msgspec takes 0.4.)"""

encode_lines = _ENCODER.encode_lines
"""Return plain JSON values as JSON Lines, each ended by LF."""
