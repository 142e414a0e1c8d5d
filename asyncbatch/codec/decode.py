"""JSON text to values, exactly: big integers keep their value, of a key given twice the last."""

from __future__ import annotations

from msgspec import Raw
from msgspec.json import Decoder

decode = Decoder().decode
"""Return the value of a JSON text that `codec.judge` has found good, but without a byte order
mark. (msgspec: as fast as orjson here, which makes floats of integers beyond 64 bits.)"""

decode_array = Decoder(list[Raw]).decode
"""Return the texts of an array's elements. Raises msgspec.ValidationError for another value."""
