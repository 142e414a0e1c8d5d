"""Records with more fields: those of their parent, or the key of an object that they are in."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.core.records import InvalidRecord
from asyncbatch.formats.decoder import decode, encode
from asyncbatch.formats.positions import text_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.formats.positions import Buffer

VALUE = "value"  # the field of a value that is no object

_SPACE = re.compile(r"[ \t\n\r]*")
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def object_at(body: bytes, pointer: Sequence[str]) -> dict[str, msgspec.Raw] | None:
    """Return the texts of the values of the object at `pointer`, None without an object."""
    text = text_at(body, pointer)
    if text is None or bytes(memoryview(text)[:1]) != b"{":
        return None
    return _decode_object(text)


def keyed_records(
    body: bytes, pointer: Sequence[str], field: str
) -> Iterator[bytes | InvalidRecord]:
    """Yield the values of the object at `pointer` as texts of objects, with their key in `field`.

    A value that is no object becomes one with the field `VALUE`. An object that has another value
    in `field` is an invalid record, and so is each value of a key that stands several times.
    """
    found = text_at(body, pointer)
    repeated = _repeated_keys(found)
    pairs: Iterable[tuple[str, Buffer]] = (object_at(body, pointer) or {}).items()
    if repeated and found is not None:  # a dictionary has only the last value of a key
        pairs = _pairs_of(str(memoryview(found), "utf-8"))
    for key, raw in pairs:
        text = bytes(raw)
        if key in repeated:
            yield InvalidRecord(text, f"is one of several values of the key {key!r}")
            continue
        if not text.startswith(b"{"):
            yield b"{%b:%b,%b:%b}" % (encode(field), encode(key), encode(VALUE), text)
            continue
        fields = _decode_object(text)
        if field not in fields:
            yield _with_pairs(text, b"%b:%b" % (encode(field), encode(key)))
        elif decode(fields[field]) == key:
            yield text
        else:
            yield InvalidRecord(text, f"has another value than its key {key!r} in {field!r}")


def _repeated_keys(text: Buffer | None) -> set[str]:
    """Return the keys that stand more than once in the object that a valid text is."""
    if text is None or bytes(memoryview(text)[:1]) != b"{":
        return set()
    # The last pairs are those of the outermost object.
    pairs = _decoder(object_pairs_hook=list).decode(str(memoryview(text), "utf-8"))
    return {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def _decoder(**more: Any) -> json.JSONDecoder:
    """Return a decoder whose numbers stay texts: Python refuses to convert very long ones."""
    return json.JSONDecoder(parse_int=str, parse_float=str, **more)


def _pairs_of(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield each key of a valid object, and the text of its value."""
    decode_at = _decoder().raw_decode
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = decode_at(text, at)
        start = _after_space(text, text.index(":", at) + 1)
        _, end = decode_at(text, start)
        yield key, text[start:end].encode()
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def with_fields(text: bytes, fields: dict[str, msgspec.Raw]) -> bytes | InvalidRecord:
    """Return the text of an object with `fields` before its own ones.

    A record that is no object, or has another value in such a field, is invalid.
    """
    if not text.startswith(b"{"):
        return InvalidRecord(text, "is no object, so no field of its parent can be added")
    own = _decode_object(text)
    for name in fields.keys() & own.keys():
        if decode(own[name]) != decode(fields[name]):
            return InvalidRecord(text, f"has another value than its parent in {name!r}")
    added = b",".join(
        b"%b:%b" % (encode(name), value) for name, value in fields.items() if name not in own
    )
    return _with_pairs(text, added)


def _with_pairs(text: bytes, pairs: bytes) -> bytes:
    rest = text[1:].lstrip()
    comma = b"," if pairs and not rest.startswith(b"}") else b""
    return b"{%b%b%b" % (pairs, comma, rest)


def decode_fields(text: bytes) -> dict[str, msgspec.Raw]:
    """Return the texts of the values of an object."""
    return _decode_object(text)
