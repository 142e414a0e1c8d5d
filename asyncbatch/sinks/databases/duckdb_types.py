"""The types of DuckDB columns that no load makes: casts of values, and their checks."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.columns.block import json_texts, plain_texts
from asyncbatch.sinks.columns.exactness import (
    CHANGES,
    ROUNDS,
    TimeType,
    interval_loss,
    is_changed_by_float32,
    loss_in_json,
)

if TYPE_CHECKING:
    from asyncbatch.sinks.columns.block import Kind

_TIMES = {
    "DATE": TimeType(True, False, False, 0),
    "TIME": TimeType(False, True, False, 6),
    "TIME_NS": TimeType(False, True, False, 9),
    "TIME WITH TIME ZONE": TimeType(False, True, True, 6),
    "TIMESTAMP": TimeType(True, True, False, 6),
    "TIMESTAMP_S": TimeType(True, True, False, 0),
    "TIMESTAMP_MS": TimeType(True, True, False, 3),
    "TIMESTAMP_NS": TimeType(True, True, False, 9),
    "TIMESTAMP WITH TIME ZONE": TimeType(True, True, True, 6),
    "TIMESTAMPTZ_NS": TimeType(True, True, True, 9),
}
_NUMBER = re.compile(
    r"(TINY|SMALL|HUGE|UTINY|USMALL|U|UBIG|UHUGE)?INT(EGER)?|DECIMAL\(\d+,\d+\)|BIGNUM|FLOAT"
)
# A text that numbers have: DuckDB also reads " 1", "1_0" and "1e1".
_NUMBER_TEXT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?|-?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# Types of JSON values.
_JSON = re.compile(r"JSON|VARIANT|.*\]|(STRUCT|MAP|UNION|TUPLE)\(.*", re.DOTALL)
# DuckDB has no cast from JSON to nested values of these types.
_NOT_OF_JSON = re.compile(r"\b(BIGNUM|BIT|VARIANT)\b")
# A text of these types has many spellings, but all of it counts.
_SPELLED_FREELY = ("UUID", "GEOMETRY")


class OwnType(NamedTuple):
    """The declared type of a column. It keeps a value as it is, or the row is rejected.

    A value is cast to the type, and back to text: if the text is another one then, `loss` decides.
    """

    declared: str

    @property
    def _is_json(self) -> bool:
        return _JSON.fullmatch(self.declared) is not None

    def texts(self, values: list[Any], kind: Kind) -> list[str | None]:
        """Return the values of a field as texts that `cast` takes."""
        return json_texts(values, kind) if self._is_json else plain_texts(values, kind)

    def cast(self, text: str) -> str:
        """Return the SQL expression for a text as a value of the type; null if it has none."""
        declared = self.declared
        if self._is_json and (declared == "VARIANT" or not _NOT_OF_JSON.search(declared)):
            text = f"TRY_CAST({text} AS JSON)"
        return f"TRY_CAST({text} AS {declared})"

    def shown(self, text: str) -> str:
        """Return the SQL expression for the text of the value of a text; null if it is the same."""
        value = self.cast(text)
        return f"nullif({f'to_json({value})' if self._is_json else value}::VARCHAR, {text})"

    def loss(self, text: str, shown: str, *, is_string: bool) -> str | None:
        """Return the loss of a text ("would round 0.5") that the type shows in another way."""
        if self._is_json:
            return loss_in_json(text, shown)
        if kept := _TIMES.get(self.declared):
            loss = kept.loss(text)
        elif self.declared == "INTERVAL":
            loss = interval_loss(text)
        elif _NUMBER.fullmatch(self.declared):
            loss = self._number_loss(text, shown, is_string=is_string)
        else:
            loss = None if self.declared.startswith(_SPELLED_FREELY) else CHANGES
        # Quotes show blanks.
        return loss and f"{loss} {encode(text).decode() if loss == CHANGES else text}"

    def _number_loss(self, text: str, shown: str, *, is_string: bool) -> str | None:
        if is_string and not _NUMBER_TEXT.fullmatch(text):
            return CHANGES
        if self.declared == "FLOAT":  # it shows 0.1 as 0.1
            return ROUNDS if is_changed_by_float32(text) else None
        return ROUNDS if Decimal(text) != Decimal(shown) else None
