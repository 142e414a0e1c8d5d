"""Values as they are sent to PostgreSQL columns, and the checks that a type keeps them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.sinks.columns.block import json_texts, without_negative_zero
from asyncbatch.sinks.columns.exactness import (
    TimeType,
    interval_loss,
    is_changed_by_float32,
    is_rounded,
)
from asyncbatch.sinks.columns.table import cells
from asyncbatch.sinks.databases.postgres.table import KINDS, MOST_NAME_BYTES, TIME, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.columns.block import Kind

    # A function that returns the loss ("would round"), or None if a type keeps the value of a text.
    Loss = Callable[[str], str | None]

_WHOLE = ("smallint", "integer")
# The beginning of the day on which asyncpg's `datetime.max` means infinity, and after which
# `datetime` ends. Such times are sent as text.
_LAST_DAY = "9999-12-31"
# Types of bits: a cast from text to one with a length cuts values or fills them up with zeros.
_BITS = re.compile(r"bit( varying)?\b")
# Types whose casts cut a value that is too long. An assignment without a cast rejects it.
_CUTTING = re.compile(r"(character varying|character)\b")
_TIMES = {
    "date": TimeType(True, False, False, 0),
    "time without time zone": TimeType(False, True, False, 6),
    "time with time zone": TimeType(False, True, True, 6),
    "timestamp without time zone": TimeType(True, True, False, 6),
    "timestamp with time zone": TimeType(True, True, True, 6),
}
_RANGES = {
    "daterange": "date",
    "tsrange": "timestamp without time zone",
    "tstzrange": "timestamp with time zone",
}
_RANGES |= {name.replace("range", "multirange"): declared for name, declared in _RANGES.items()}
# A number with an exponent that is not negative, from 1e16 on.
_LARGE = re.compile(r"-?[0-9.]+e[0-9]")
# An element of an array or a bound of a range, with or without quotes.
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"{}\[\](),][^"{}\[\](),]*)')


class ColumnType(NamedTuple):
    """The type of a column: its declared name, and that of its base type if it is a domain."""

    declared: str
    base: str
    is_utc: bool = False  # whether it holds times in UTC, also without their Z
    is_made: bool = False  # whether a sink created it

    @classmethod
    def of(cls, declared: str) -> ColumnType:
        """Return a type that is no domain."""
        return cls(declared, declared)

    @property
    def is_known(self) -> bool:
        """Whether values of this type are sent in binary form, not as text."""
        return self.declared in KINDS or self.declared == "jsonb"

    @property
    def cast(self) -> str:
        """The cast of a staged text to this type, in SQL. Without one, a length is checked."""
        if self.is_known or _CUTTING.match(self.base):
            return ""
        return "::bit varying" if _BITS.match(self.base) else f"::{self.declared}"

    @property
    def loss(self) -> Loss | None:
        """The check of texts for this type, or None if it keeps all texts that it can read."""
        if self.is_known or self.is_utc:
            return None
        if self.base.endswith("[]"):
            return _of_elements(_loss(self.base[:-2]))
        if bound := _RANGES.get(self.base):
            return _of_elements(_loss(bound))
        return _loss(self.base)


def as_sent(kind: Kind, values: list[Any], column: ColumnType) -> tuple[ColumnType, list[Any]]:
    """Return the values of a column of a block as they are sent, and the type they are sent for."""
    declared = column.declared
    if declared == TIME and any(value and value.startswith(_LAST_DAY) for value in values):
        return ColumnType.of("timestamp with time zone"), values
    return column, _sent(kind, values, column)


def _sent(kind: Kind, values: list[Any], column: ColumnType) -> list[Any]:
    if kind == "null":
        return values
    if column.declared == TIME:
        return times(values)
    if column.declared == "jsonb" or column.base == "json":
        return json_texts(values, kind)
    if have := KINDS.get(column.declared):
        if have == "text":  # numeric has no negative zero, and the column may have been numeric
            values = without_negative_zero(kind, values)
        found = cells(values, kind, have)
        if have == "text" and column.is_made and kind in ("real", "number", "numeric", "mixed"):
            # Numeric cannot tell 1e22 from an integer, and the column may have been numeric.
            numbers = found if kind != "mixed" else values  # these are JSON: strings have quotes
            found = [
                f"{Decimal(number):f}" if number and _LARGE.match(number) else text
                for number, text in zip(numbers, found, strict=True)
            ]
        if column.is_made and kind in ("json", "mixed"):  # a column that may have been jsonb
            found = [
                jsonb_text(decode(json.encode())) if json and json[0] in "[{" else text
                for json, text in zip(values, found, strict=True)
            ]
        if have == "numeric" and column.is_made:  # it may have had doubles, which have no scale
            found = [text and text.removesuffix(".0") for text in found]
        return list(map(_decimal, found)) if have == "numeric" else found
    if kind == "text":
        return values
    return [None if text is None else _text(text, column.base) for text in json_texts(values, kind)]


def jsonb_text(value: Json) -> str:
    """Return a JSON value as PostgreSQL shows it in a column of type jsonb."""
    if isinstance(value, dict):
        names = sorted((len(data := name.encode()), data, name) for name in value)
        fields = (f"{encode(name).decode()}: {jsonb_text(value[name])}" for *_, name in names)
        return f"{{{', '.join(fields)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(jsonb_text, value))}]"
    text = encode(value).decode()
    if isinstance(value, float):  # without an exponent, and without negative zero
        return f"{Decimal(text):f}" if value else "0.0"
    return text


def _text(json: str, base: str) -> str:
    """Return the text of a value for a column, from its JSON text. Only the two decide."""
    if json[0] == '"':
        text: str = decode(json.encode())
        return text
    if base in _WHOLE and not json.isdecimal() and json[0] in "-0123456789":
        number = Decimal(json)
        # 1.0 and 1e2 are whole numbers. No column holds one of more than 19 digits.
        if number.adjusted() < 20 and number == number.to_integral_value():
            return str(int(number))
    return json


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _loss(declared: str) -> Loss | None:  # noqa: PLR0911 - one return for each type
    """Return the check of texts for a type, or None if it keeps all that it can read."""
    if declared == "real":
        return lambda text: "would round" if is_changed_by_float32(text) else None
    if declared == "money":
        return lambda text: "would round" if is_rounded(text.lstrip("$"), 2) else None
    if declared == '"char"':
        return lambda text: "would cut" if len(text.encode()) > 1 else None
    if declared == "name":
        return lambda text: "would cut" if len(text.encode()) > MOST_NAME_BYTES else None
    if declared.startswith("interval"):
        return _interval_loss(declared)
    name, digits, places = _parsed(declared)
    if name == "numeric" and digits is not None:
        return lambda text: "would round" if is_rounded(text, places) else None
    if name == "character":
        return lambda text: "would not keep the blanks at the end of" if text[-1:] == " " else None
    if name == "character varying" and digits is not None:
        longest = digits
        # PostgreSQL cuts blanks at the end without an error.
        return lambda text: (
            "would cut" if len(text) > longest and text[longest:].isspace() else None
        )
    if kept := _TIMES.get(name):
        return kept.loss if digits is None else kept._replace(digits=digits).loss
    return None


def _parsed(declared: str) -> tuple[str, int | None, int]:
    """Return the name of a type without its modifiers, and these: timestamp(3), numeric(10,2)."""
    head, bracket, rest = declared.partition("(")
    modifiers, _, tail = rest.partition(")")
    if not bracket or not re.fullmatch(r"\d+(,-?\d+)?", modifiers):
        return declared, None, 0
    first, _, second = modifiers.partition(",")
    return head + tail, int(first), int(second or 0)


def _interval_loss(declared: str) -> Loss:
    digits = re.search(r"\((\d)\)", declared)
    most = int(digits[1]) if digits else 6
    return lambda text: interval_loss(text, most)


def _of_elements(loss: Loss | None) -> Loss | None:
    """Return the check of an array or range, made of the check of its elements."""
    if loss is None:
        return None

    def loss_of_elements(text: str) -> str | None:
        elements = (found[1] or found[2] for found in _ELEMENT.finditer(text))
        found = (loss(element.strip()) for element in elements if element)
        return next(filter(None, found), None)

    return loss_of_elements
