"""The parts of a JSON Schema and of the documents that it refers to, and where references lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin

from msgspec import Struct

from asyncbatch.formats.positions import parse_pointer
from asyncbatch.transforms.schema_drafts import (
    DATA_KEYWORDS,
    DRAFT_4,
    DRAFTS,
    LATEST_DRAFT,
    NAME_KEYWORDS,
    draft_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.records import Json

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# The address of a document that has none: references are resolved against it.
NO_ADDRESS = "file:///schema.json"
_FIRST_2019 = DRAFTS.index("https://json-schema.org/draft/2019-09/schema")
_ANCHORS = ("$anchor", "$dynamicAnchor")


class Place(Struct, frozen=True):
    """Where a part of a schema is."""

    base: str  # the URI that references are resolved against
    draft: str
    document: str  # the URI of the document, ...
    tokens: tuple[str | int, ...]  # ... and the way to the part in it

    @property
    def is_old(self) -> bool:
        """Whether a reference makes the keywords beside it mean nothing, as in drafts up to 7."""
        return DRAFTS.index(self.draft) < _FIRST_2019


class ReferenceTarget(Struct, frozen=True):
    """What a reference means."""

    part: Any
    resource: str  # the URI without its fragment
    pointer: tuple[str, ...]  # from there; empty for a name
    document: str
    tokens: tuple[str | int, ...]  # the way to the part in the document


class SchemaParts:
    """The parts of the documents of a schema, by their identity.

    `documents` are the URI and the content of each; the first is the schema. They are copied, so
    that no part is at two places.
    """

    def __init__(self, documents: Sequence[tuple[str, Json]]) -> None:
        self.documents: list[tuple[str, Json]] = [(uri, _copied(one)) for uri, one in documents]
        self.root: Json = self.documents[0][1]
        self._places: dict[int, Place] = {}
        self._schemas: list[dict[str, Any]] = []
        self._adopted: list[Json] = []  # so that no other part gets their identity
        # The parts that URIs and anchors mean; None if there are several.
        self._resources: dict[str, Json] = {}
        self._anchors: dict[tuple[str, str], Json] = {}
        default = draft_of(self.root, LATEST_DRAFT)
        for uri, document in self.documents:
            _note(self._resources, uri, document)
            self._add(document, Place(uri, default, uri, ()), are_names=False)

    def place(self, part: Json) -> Place | None:
        """Return where a part is, None if it is no schema of these documents."""
        return self._places.get(id(part))

    def adopt(self, part: Json, like: Json) -> None:
        """Take a part that is made for another one as if it were at its place."""
        place = self.place(like)
        if place is not None:
            self._places[id(part)] = place
        self._adopted.append(part)

    def target(self, reference: Json, part: Json) -> str | None:
        """Return the absolute URI that a reference in a part means."""
        place = self.place(part)
        if place is None or not isinstance(reference, str):
            return None
        return _joined(place.base, reference)

    def schemas(self) -> list[dict[str, Any]]:
        """Return all schemas in the documents."""
        return list(self._schemas)

    def part_at(self, reference: Json, part: Json) -> Json:
        """Return the part that a reference in a part means; None if that cannot be told."""
        found = self.find(reference, part)
        return found.part if found is not None else None

    def find(self, reference: Json, part: Json) -> ReferenceTarget | None:
        """Return the target of a reference in a part, None if it is unknown."""
        uri, fragment = urldefrag(self.target(reference, part) or "")
        fragment = unquote(fragment)
        if not fragment or fragment.startswith("/"):
            return self._find_below(uri, fragment)
        part = self._anchors.get((uri, fragment))
        place = self.place(part)
        return (
            ReferenceTarget(part, uri, (), place.document, place.tokens)
            if place is not None
            else None
        )

    def _find_below(self, uri: str, pointer: str) -> ReferenceTarget | None:
        found: Any = self._resources.get(uri)
        if isinstance(found, bool) and not pointer:
            return ReferenceTarget(found, uri, (), uri, ())
        start = self.place(found)
        if start is None:
            return None
        try:
            tokens = parse_pointer(pointer)
            for token in tokens:
                found = found[_index(token)] if isinstance(found, list) else found[token]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
        if not isinstance(found, bool) and self.place(found) is None:
            return None
        return ReferenceTarget(found, uri, tokens, start.document, (*start.tokens, *tokens))

    def _add(self, value: Json, place: Place, *, are_names: bool) -> None:
        """Note the places of a value and of those in it."""
        if isinstance(value, list):
            for number, one in enumerate(value):
                self._add(one, _below(place, number), are_names=False)
        if not isinstance(value, dict):
            return
        if not are_names:
            place = self._add_schema(value, place)
        for name, one in value.items():
            if are_names or name not in DATA_KEYWORDS:
                is_map = not are_names and name in NAME_KEYWORDS
                self._add(one, _below(place, name), are_names=is_map)

    def _add_schema(self, schema: dict[str, Any], place: Place) -> Place:
        """Note the place of a schema, and its names; return the place with its base."""
        draft = draft_of(schema, place.draft)
        place = Place(place.base, draft, place.document, place.tokens)
        name = schema.get("id" if draft == DRAFT_4 else "$id")
        if isinstance(name, str) and not (place.is_old and "$ref" in schema):
            uri, fragment = urldefrag(_joined(place.base, name))
            if name.startswith("#"):
                _note(self._anchors, (place.base, unquote(fragment)), schema)
            else:
                _note(self._resources, uri, schema)
                place = Place(uri, draft, place.document, place.tokens)
        for keyword in _ANCHORS:
            if isinstance(schema.get(keyword), str):
                _note(self._anchors, (place.base, schema[keyword]), schema)
        self._places[id(schema)] = place
        self._schemas.append(schema)
        return place


def _copied(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value


def _note(names: dict[Any, Json], name: Any, part: Json) -> None:
    """Note the part that a name stands for: none if two parts have this name."""
    names[name] = part if names.get(name, part) is part else None


def _below(place: Place, token: str | int) -> Place:
    return Place(place.base, place.draft, place.document, (*place.tokens, token))


def _index(token: str) -> int:
    if not (token.isascii() and token.isdigit()):
        raise ValueError(token)
    return int(token)


def _joined(base: str, reference: str) -> str:
    """Return an absolute URI. `urljoin` knows fragments only of some kinds of URIs."""
    if reference.startswith("#"):
        return base + reference
    try:
        return urljoin(base, reference)
    except ValueError:  # no URI reference
        return reference
