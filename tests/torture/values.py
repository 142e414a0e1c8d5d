"""The values of a target: whether they are those of records, and those of another target."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

_DIGITS = re.compile(r"-?[0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)")


class Table(NamedTuple):
    """The content of a target. Rows are in the order of their numbers."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]

    def content(self, *, has_order: bool, is_parquet: bool) -> str:
        """Return everything as a text, which is the same for equal tables.

        `has_order`: the order of columns counts. A JSON text that Parquet makes of the STRUCT of an
        earlier run has its order of keys, and 1.0 for 1. PostgreSQL keeps the instant of a time,
        not its offset: so a time has the same text with any.
        """
        places = list(range(len(self.columns)))
        if not has_order:
            places.sort(key=lambda place: self.columns[place])
        lines = []
        for place in places:
            values = [_normal(row[place]) for row in self.rows]
            values = list(map(_one_form, values)) if is_parquet else values
            lines.append(f"{self.columns[place]} {self.types[place]} {values}")
        return "\n".join(lines)


def is_held(found: Any, value: Any, declared: str, target: str) -> bool:
    """Whether a column of a type holds a value of a record."""
    if target == "csv":
        is_text = value is None or isinstance(value, str)
        return bool(found == (value or "")) if is_text else _is_json(found, value)
    if declared == "jsonb" and value is not None:
        return found is not None and _is_json(found, value)
    if declared == "BOOLEAN" and target == "sqlite" and found in (0, 1):
        found = bool(found)
    if value is None or isinstance(value, str):
        is_same = _normal(found) == _normal(value) if target == "postgres" else found == value
        return bool(is_same)
    if isinstance(found, str):
        if target == "postgres" and isinstance(value, float) and _DIGITS.fullmatch(found):
            value = Decimal(repr(value))  # the digits of 1e22, not those of its double
        return _is_json(found, value)
    if isinstance(found, dict | list):
        return is_nested_held(found, value)
    if isinstance(found, Decimal) and isinstance(value, float):
        found = float(found)
    return bool(_exact(found) == _exact(value))


def is_nested_held(found: Any, value: Any) -> bool:
    """Whether a STRUCT or LIST, or the JSON text of an array or object, holds a value.

    A key that is missing is null in a STRUCT.
    """
    if isinstance(found, dict) and isinstance(value, dict):
        return value.keys() <= found.keys() and all(
            is_nested_held(part, value.get(name)) for name, part in found.items()
        )
    if isinstance(found, list) and isinstance(value, list):
        return len(found) == len(value) and all(map(is_nested_held, found, value))
    if isinstance(found, str) and isinstance(value, dict | list):
        return _is_json(found, value)
    return bool(_exact(found) == _exact(value))


def _one_form(cell: Any) -> Any:
    if not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    return json.dumps(json.loads(cell, parse_float=_number), sort_keys=True)


def _number(text: str) -> float:
    return int(float(text)) if float(text).is_integer() else float(text)


def _normal(value: Any) -> Any:
    """Return a time as an instant, and anything else as it is."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _is_json(text: str, value: Any) -> bool:
    try:
        return bool(_exact(json.loads(text)) == _exact(value))
    except ValueError:
        return False


def _exact(value: Any) -> Any:
    """Return a JSON value in a form in which true is not 1, and all numbers are exact."""
    if isinstance(value, dict):
        return {name: _exact(part) for name, part in value.items()}
    if isinstance(value, list):
        return list(map(_exact, value))
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return Fraction(value) if is_number else repr(value)
