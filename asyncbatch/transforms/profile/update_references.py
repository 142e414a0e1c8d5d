"""The references of a JSON Schema that an update would break, or whose meaning it would narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import decode
from asyncbatch.transforms.profile.references import NO_ADDRESS, REFERENCES, SchemaParts
from asyncbatch.transforms.schema_drafts import DATA_KEYWORDS
from asyncbatch.transforms.schema_file import SchemaSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.profile.references import ReferenceTarget

_DEFINITIONS = ("$defs", "definitions")  # an update changes nothing in them
# Keywords about the same value, whose schemas tell which fields or items are evaluated.
_IN_PLACE = ("allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas")
_STANDARD = ("http://json-schema.org/", "https://json-schema.org/")


def unmovable_reference(schema: Json | SchemaSource) -> str | None:
    """Return a reference to a part of the schema that an update must not change, or None.

    An update moves and removes parts that pointers lead to, except in definitions. And where a
    schema must not hold (`not`), one that allows more values restricts these.
    """
    return _Search(schema).find()


class _Search:
    """A search in the documents of a schema."""

    def __init__(self, schema: Json | SchemaSource) -> None:
        documents = [(NO_ADDRESS, schema)]
        if isinstance(schema, SchemaSource):
            documents = [(uri, decode(text)) for uri, text in schema.documents]
        self._parts = SchemaParts(documents)
        self._seen: set[int] = set()  # the parts that are searched for references, by their ids

    def find(self) -> str | None:
        """Return the first reference that an update would break, or None."""
        for part in self._parts.schemas():
            place = self._parts.place(part)
            assert place is not None
            if place.is_old and "$ref" in part and place.tokens and {"$id", "id"} & part.keys():
                return str(part["$ref"])  # beside an alternative, the address would count
            for name in REFERENCES:
                reference = part.get(name)
                if isinstance(reference, str) and self._is_movable(reference, part):
                    return reference
        for part in self._parts.schemas():
            for one in _opposed(part):
                if reference := self._widened_reference(one):
                    return reference
            if {"unevaluatedProperties", "unevaluatedItems"} & part.keys():
                for one in _in_place(part):
                    if reference := self._reference_to_widened(one):
                        return reference
        return None

    def _is_movable(self, reference: str, part: dict[str, Any]) -> bool:
        """Whether a pointer leads to a part that an update may move or remove."""
        target = self._parts.find(reference, part)
        if target is None:
            return not self._is_standard(reference, part)
        place = self._parts.place(part)
        assert place is not None
        if not target.pointer or self._is_fixed(target):
            return False
        return target.pointer[0] not in _DEFINITIONS or target.resource != place.base

    def _is_fixed(self, target: ReferenceTarget) -> bool:
        """Whether an update changes nothing in a part."""
        if target.document != self._parts.documents[0][0]:
            return True
        return bool(target.tokens) and target.tokens[0] in _DEFINITIONS

    def _is_standard(self, reference: str, part: dict[str, Any]) -> bool:
        target = self._parts.target(reference, part)
        return target is not None and target.startswith(_STANDARD)

    def _widened_reference(self, value: Json) -> str | None:
        """Return a reference to a part that an update widens, from a value or from its targets."""
        if isinstance(value, list):
            return next(filter(None, map(self._widened_reference, value)), None)
        if not isinstance(value, dict) or id(value) in self._seen:
            return None
        self._seen.add(id(value))
        if self._parts.place(value) is not None and (
            reference := self._reference_to_widened(value)
        ):
            return reference
        rest = [one for name, one in value.items() if name not in DATA_KEYWORDS]
        return self._widened_reference(rest)

    def _reference_to_widened(self, part: dict[str, Any]) -> str | None:
        for name in REFERENCES:
            reference = part.get(name)
            if not isinstance(reference, str):
                continue
            target = self._parts.find(reference, part)
            if target is None:
                if not self._is_standard(reference, part):
                    return reference
                continue
            # What a dynamic one means depends on the way that leads to it.
            if name != "$ref" or not self._is_fixed(target):
                return reference
            if found := self._widened_reference(target.part):
                return found
        return None


def _opposed(schema: dict[str, Any]) -> Iterator[Json]:
    """Yield the parts that restrict a schema if they allow more."""
    for name in ("not", "if"):
        if name in schema:
            yield schema[name]
    if "oneOf" in schema:
        yield schema["oneOf"]
    if "contains" in schema and "maxContains" in schema:
        yield schema["contains"]


def _in_place(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema, and those in it that are about the same value."""
    todo: list[Json] = [schema]
    for one in todo:
        if isinstance(one, dict):
            yield one
            for name in _IN_PLACE:
                inner = one.get(name, [])
                found = inner.values() if name == "dependentSchemas" else inner
                todo += [inner] if name in ("then", "else") else list(found)
