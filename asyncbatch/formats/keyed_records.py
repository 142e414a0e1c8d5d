"""Records with more fields: those of their parent, or the key of an object that they are in."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from asyncbatch.core.records import InvalidRecord
from asyncbatch.formats.decoder import decode, encode
from asyncbatch.formats.positions import text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.formats.positions import Buffer

VALUE = "value"  # the field of a value that is no object

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
    in `field` is an invalid record, and so is the value of a key that stands twice: the first
    value is lost.
    """
    repeated = _repeated_keys(text_at(body, pointer))
    for key, raw in (object_at(body, pointer) or {}).items():
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
    # The numbers stay texts: Python refuses to convert very long ones. The last pairs are those of
    # the outermost object.
    decode_pairs = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str).decode
    counts = Counter(key for key, _ in decode_pairs(str(memoryview(text), "utf-8")))
    return {key for key, count in counts.items() if count > 1}


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
