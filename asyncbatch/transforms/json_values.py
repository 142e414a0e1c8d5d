"""Conversion of the results of user functions to JSON values, after a fast check."""

from __future__ import annotations

import operator
import re
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asyncbatch.formats.grammar import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_INTEGER_DIGITS,
    MIN_INTEGER,
)
from asyncbatch.formats.positions import format_pointer
from asyncbatch.transforms.base import RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asyncbatch.core.records import Json

_RECURSION = 100  # levels of the fast check; deeper values take the slow way, up to MAX_DEPTH
_GOOD_KEYS: set[str] = set()  # a cache of checked keys: nearly all records have the same
_MANY_KEYS = 10_000  # the cache grows no more at this size
# The first byte of a JSON text, and the first name of an object if it has no escapes.
_START = re.compile(rb'[ \t\r\n]*+(.)(?:[ \t\r\n]*+"([^"\\]*+)"[ \t\r\n]*+:)?', re.DOTALL)
_AS_TEXT = (datetime, date, time, UUID, Decimal)

_Path = list[str | int]
_Level = tuple[Any, "Iterator[tuple[str | int, Any]]", Any]


def to_json_value(value: Any) -> Any:
    """Return `value` if it is a JSON value, else a converted copy.

    A tuple becomes a list, a dataclass or msgspec Struct an object, an Enum its value, an object
    with `__index__` an integer. Dates, times, UUIDs and Decimals become text, as msgspec writes
    them. A subclass of a JSON type becomes that type. Raises RecordError with the type and the JSON
    Pointer of a value that JSON cannot hold, such as NaN and Infinity.
    """
    return value if is_json_value(value) else _convert(value)


def is_json_value(value: Any, depth: int = _RECURSION) -> bool:  # noqa: C901, PLR0911, PLR0912 - the hot loop: calls would slow it
    """Whether `value` is a JSON value of at most `depth` levels."""
    kind = type(value)
    if kind is dict:
        if not value.keys() <= _GOOD_KEYS:
            for key in value:
                if type(key) is not str or not (key.isascii() or _is_utf8(key)):
                    return False
            if len(_GOOD_KEYS) < _MANY_KEYS:
                _GOOD_KEYS.update(value)
        items: Iterable[Any] = value.values()
    elif kind is list:
        items = value
    else:
        items = (value,)
    for item in items:
        kind = type(item)
        if kind is str:
            if not (item.isascii() or _is_utf8(item)):
                return False
        elif kind is int:
            if not MIN_INTEGER <= item <= MAX_INTEGER:
                return False
        elif kind is float:
            if item - item != 0.0:  # true only for NaN and the infinities
                return False
        elif item is None or kind is bool:
            pass
        elif (kind is dict or kind is list) and depth:
            if not is_json_value(item, depth - 1):
                return False
        else:
            return False
    return True


def is_unchanged(value: Json, record: Json) -> bool:
    """Whether `value` is `record`: the same fields in the same order, with the same values.

    1 and 1.0 are the same, because jq does not tell them apart; 1 and true are not.
    """
    # The first comparison is fast, but takes true for 1 and ignores the order of fields.
    return value is record or (value == record and _is_same(value, record))


_SMALL_TEXT = 2000  # bytes of a record of which all names are decoded
_FIRST_BYTES: dict[type, bytes] = {dict: b"{", list: b"[", str: b'"', bool: b"tf"}
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_surely_changed(value: Json, record: bytes | msgspec.Raw) -> bool:
    """Whether `value` is surely not the record with a text, by its type and the names of fields.

    If false, `is_unchanged` must decide, which takes the time to decode the record.
    """
    text = memoryview(record)
    start = _START.match(text)
    if start is None or start[1] not in _FIRST_BYTES.get(type(value), b"-0123456789n"):
        return True
    if type(value) is not dict:
        return False
    if start[2] is not None and bytes(start[2]) != next(iter(value), "\n").encode():
        return True
    if len(text) <= _SMALL_TEXT:
        return list(_decode_fields(record)) != list(value)
    try:
        _decoder_of(tuple(value))(record)
    except msgspec.ValidationError:  # the record has another field
        return True
    except ValueError:  # a name that a Struct cannot have
        pass
    return False


@lru_cache(64)
def _decoder_of(names: tuple[str, ...]) -> Callable[[bytes | msgspec.Raw], object]:
    """Return a decoder of objects that stops at any other field."""
    fields = [
        (f"f{at}", msgspec.Raw, msgspec.field(name=name, default=None))
        for at, name in enumerate(names)
    ]
    struct = msgspec.defstruct("Names", fields, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(struct).decode


def _is_same(value: Json, record: Json) -> bool:
    """Whether equal values also have their fields in the same order, and the same booleans.

    It does not recurse: `all(map(...))` does so in C, of which Python 3.12 allows few levels.
    """
    pairs: list[tuple[Any, Any]] = [(value, record)]
    while pairs:
        one, other = pairs.pop()
        if type(one) is dict:
            if list(one) != list(other):
                return False
            pairs.extend(zip(one.values(), other.values(), strict=True))
        elif type(one) is list:
            pairs.extend(zip(one, other, strict=True))
        elif (type(one) is bool) is not (type(other) is bool):
            return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _convert(value: Any) -> Any:
    """Return a copy of `value` that is plain JSON. Uses a stack instead of recursion."""
    result: list[Any] = []
    path: _Path = []
    inside: set[int] = set()
    # Each level: the container to fill, the remaining items, and the original container. The
    # reference to the original keeps its id from being reused.
    levels: list[_Level] = [(result, iter(((0, value),)), None)]
    while levels:
        target, items, source = levels[-1]
        for token, item in items:
            path[len(levels) - 1 :] = [token]
            found = _scalar_or_container(item, path)
            if isinstance(found, dict | list):
                if id(item) in inside:
                    raise _not_json("a value that contains itself", path)
                if len(levels) > MAX_DEPTH:
                    raise RecordError(
                        "transform", f"returned a value nested more than {MAX_DEPTH:,} levels deep"
                    )
                found, contents = _empty_and_contents(found, path)
                inside.add(id(item))
                levels.append((found, contents, item))
            _put(target, token, found)
            if levels[-1][0] is not target:
                break
        else:
            levels.pop()
            inside.discard(id(source))
    return result[0]


def _scalar_or_container(value: Any, path: _Path) -> Any:
    """Return `value` as a JSON scalar, or as a dict or list of its contents."""
    while isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | dict | list):
        return value
    if isinstance(value, str):
        return _text(value, "text", path)
    if isinstance(value, float):
        number = float.__float__(value)
        if number - number != 0.0:
            raise _not_json(str(number), path)
        return number
    return _object_contents(value, path)


def _object_contents(value: Any, path: _Path) -> Any:
    """Return the JSON form of any other object; see `_scalar_or_container`."""
    if isinstance(value, Decimal) and not value.is_finite():
        raise _not_json(f"the Decimal {value}", path)
    if isinstance(value, _AS_TEXT):
        return msgspec.to_builtins(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, msgspec.Struct):
        return _struct_contents(value)
    # Imported here, since a worker needs a sixth of its start for `inspect` and `ast`.
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses

        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _integer(value, path)


def _text(value: str, kind: str, path: _Path) -> str:
    text = str.__str__(value)
    if not _is_utf8(text):
        raise _not_json(f"{kind} with half of a surrogate pair", path)
    return text


def _struct_contents(value: msgspec.Struct) -> Any:
    """Return the fields of a Struct as msgspec: encoded names, tag, no UNSET values."""
    config, fields = value.__struct_config__, msgspec.structs.fields(value)
    held = [(field.encode_name, getattr(value, field.name)) for field in fields]
    tag = [] if config.tag is None else [(config.tag_field, config.tag)]
    if config.array_like:
        return [item for _, item in tag + held]
    return {name: item for name, item in tag + held if item is not msgspec.UNSET}


def _integer(value: Any, path: _Path) -> int:
    try:
        number = int.__int__(operator.index(value))
    except TypeError:
        raise _not_json(_type_name(value), path) from None
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise _not_json(f"an integer of more than {MAX_INTEGER_DIGITS:,} digits", path)
    return number


def _empty_and_contents(
    value: dict[Any, Any] | list[Any], path: _Path
) -> tuple[Any, Iterator[tuple[str | int, Any]]]:
    if isinstance(value, list):
        return [], iter(enumerate(value))
    contents = []
    for key, item in value.items():
        if not isinstance(key, str):
            raise _not_json(f"an object with {_type_name(key)} for a key", path)
        contents.append((_text(key, "a key", path), item))
    return {}, iter(contents)


def _put(target: Any, token: str | int, item: Any) -> None:
    if isinstance(target, list):
        target.append(item)
    else:
        target[token] = item


def _type_name(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _not_json(description: str, path: _Path) -> RecordError:
    place = f" at {format_pointer(path[1:])}" if path[1:] else ""
    return RecordError("transform", f"returned {description}{place}, which JSON cannot hold")
