"""A JSON Schema with its references, in the forms of the newest draft."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import encode
from asyncbatch.formats.positions import parse_pointer
from asyncbatch.transforms.profile.widen import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import Json

_MAX_REFERENCES = 100  # that are followed one after another
# In these drafts, a reference makes the keywords beside it mean nothing.
_OLD_DRAFT = re.compile(r"json-schema\.org/draft-0[3-7]/")
_DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})
_VALUES = frozenset({"const", "enum"})  # keywords whose values are no schemas
# Keywords whose values are schemas, or others, by name.
_BY_NAME = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "dependentRequired"}
)


class ResolvedSchema:
    """A schema that contains others, which may refer to each other."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self.text: bytes = encode(root)
        dialect = root.get("$schema") if isinstance(root, dict) else None
        self._is_old = isinstance(dialect, str) and bool(_OLD_DRAFT.search(dialect))
        # By its identity: the parts are compared by identity, too.
        self._plain: dict[int, tuple[Json, Json]] = {}

    def plain(self, schema: Json) -> Json:
        """Return a part of the document as the newest draft writes it, not as a reference."""
        schema = self._resolve(schema)
        if not isinstance(schema, dict):
            return schema
        if id(schema) not in self._plain:
            self._plain[id(schema)] = schema, _modern(schema)
        return self._plain[id(schema)][1]

    def _resolve(self, schema: Json) -> Json:
        """Follow references to parts of the document, from a schema that is nothing else."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, dict) or "$ref" not in schema:
                return schema
            if not self._is_old and schema.keys() - ANNOTATIONS != {"$ref"}:
                return schema
            part = self.part_at(schema["$ref"])
            if part is None:
                return {"$ref": schema["$ref"]} if self._is_old else schema
            schema = part
        return schema

    def part_at(self, reference: Json) -> Json:
        """Return the part that a reference means; None if it is not in this document."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        if reference != "#" and not reference.startswith("#/"):
            return next(_anchored(self._root, reference), None)
        part = self._root
        try:
            for token in parse_pointer(reference[1:]):
                part = part[int(token)] if isinstance(part, list) else part[token]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
        return part


class Equality:
    """Whether keywords of two documents mean the same, with what they refer to."""

    def __init__(self, old: ResolvedSchema, new: ResolvedSchema) -> None:
        self._old, self._new = old, new
        self._is_one = old.text == new.text
        self._open: set[tuple[int, int]] = set()  # the pairs that are compared, by their ids

    def of_keyword(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether a keyword means the same in two schemas that have it."""
        first, second = old[name], new[name]
        if name == "$ref":
            return self._of_references(first, second)
        if name in _DYNAMIC:
            return self._is_one  # what they refer to depends on the way that leads to them
        if name in _VALUES:
            return encode(first) == encode(second)
        if name in _BY_NAME and isinstance(first, dict) and isinstance(second, dict):
            return first.keys() == second.keys() and all(
                self._of(one, second[key]) for key, one in first.items()
            )
        return self._of(first, second)

    def _of(self, old: Json, new: Json) -> bool:
        old, new = self._old.plain(old), self._new.plain(new)
        if isinstance(old, dict) and isinstance(new, dict):
            pair = id(old), id(new)
            if pair in self._open:
                return True
            self._open.add(pair)
            try:
                return self._of_objects(old, new)
            finally:
                self._open.discard(pair)
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and all(map(self._of, old, new))
        return encode(old) == encode(new)

    def _of_references(self, old: Json, new: Json) -> bool:
        """Whether two references mean the same. One that leads out of its document is its text."""
        first, second = self._old.part_at(old), self._new.part_at(new)
        if first is None or second is None:
            return first is second and encode(old) == encode(new)
        return self._of(first, second)

    def _of_objects(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        names = old.keys() - ANNOTATIONS
        return names == new.keys() - ANNOTATIONS and all(
            self.of_keyword(name, old, new) for name in names
        )


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the keywords of the newest draft in place of older ones."""
    changed: dict[str, Any] = {}
    if isinstance(schema.get("items"), list):
        changed["prefixItems"] = schema["items"]
        changed["items"] = schema.get("additionalItems", True)
    for exclusive, end in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if schema.get(exclusive) is True and end in schema:
            changed |= {exclusive: schema[end], end: None}
        elif isinstance(schema.get(exclusive), bool):
            changed[exclusive] = None
    if not changed:
        return schema
    merged = schema | changed
    dropped = {"additionalItems", *(name for name, one in changed.items() if one is None)}
    return {name: one for name, one in merged.items() if name not in dropped}


def _anchored(part: Json, reference: str) -> Iterator[Json]:
    """Yield the parts of a document that a reference such as `#name` may mean."""
    if isinstance(part, dict):
        ids = part.get("$id"), part.get("id")
        if part.get("$anchor") == reference[1:] or reference in ids:
            yield part
        for one in part.values():
            yield from _anchored(one, reference)
    elif isinstance(part, list):
        for one in part:
            yield from _anchored(one, reference)
