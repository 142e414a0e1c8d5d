"""A JSON Schema with its references, in the forms of the newest draft."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.transforms.profile.references import NO_ADDRESS, SchemaParts
from asyncbatch.transforms.profile.widen import ANNOTATIONS
from asyncbatch.transforms.schema_drafts import DRAFTS, LATEST_DRAFT
from asyncbatch.transforms.schema_file import SchemaSource
from asyncbatch.transforms.schema_part import PartValidators

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncbatch.core.records import Json

_Difference = TypeVar("_Difference")

_MAX_REFERENCES = 100  # that are followed one after another
_MAX_REPEATS = 1000  # pairs that differ and are compared again, to show each place
_DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})
_VALUES = frozenset({"const", "enum"})  # keywords whose values are no schemas
# Keywords whose values are schemas, or others, by name.
_BY_NAME = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "dependentRequired"}
)
# What is never read from elsewhere: each library has its own copy.
_STANDARD = ("http://json-schema.org/", "https://json-schema.org/")
# The numbers in `DRAFTS` of the drafts that are the first with a keyword, ...
_FIRST_DRAFTS = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 1),
    **dict.fromkeys(("if", "then", "else"), 2),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains"), 3),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties"), 3),
    **dict.fromkeys(("prefixItems", "$dynamicRef"), 4),
}
# ... and with a format: before, the format is not checked.
_FIRST_DRAFTS_OF_FORMATS = {
    **dict.fromkeys(("json-pointer", "uri-reference", "uri-template"), 1),
    **dict.fromkeys(("idn-hostname", "iri", "iri-reference", "relative-json-pointer"), 2),
    **dict.fromkeys(("duration", "uuid"), 3),
}


class ResolvedSchema:
    """A schema that contains others, which may refer to each other and to other documents."""

    def __init__(self, schema: Json | SchemaSource) -> None:
        documents = [(NO_ADDRESS, schema)]
        if isinstance(schema, SchemaSource):
            documents = [(uri, decode(text)) for uri, text in schema.documents]
        self._parts = SchemaParts(documents)
        self.root: Json = self._parts.root
        # Each document, and its place beside the first one.
        folder = documents[0][0].rpartition("/")[0]
        self.texts: list[tuple[str, bytes]] = [
            (uri.removeprefix(folder) if number else "", encode(one))
            for number, (uri, one) in enumerate(documents)
        ]
        self._validators = PartValidators(self._parts.documents)
        # By their identity: the parts are compared by identity, too.
        self._plain: dict[int, tuple[Json, Json]] = {}
        self._by_type: dict[int, list[dict[str, Any]]] = {}

    def plain(self, schema: Json) -> Json:
        """Return a part of the document as the newest draft writes it, not as a reference."""
        schema = self._resolve(schema)
        if not isinstance(schema, dict):
            return schema
        if id(schema) not in self._plain:
            plain = _modern(schema, self.draft(schema))
            if plain is not schema:
                self._parts.adopt(plain, schema)
                self._plain[id(plain)] = plain, plain
            self._plain[id(schema)] = schema, plain
        return self._plain[id(schema)][1]

    def draft(self, part: Json) -> str:
        """Return the draft of a part."""
        place = self._parts.place(part)
        return place.draft if place is not None else LATEST_DRAFT

    def _resolve(self, schema: Json) -> Json:
        """Follow references, from a schema that is nothing else."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, dict) or "$ref" not in schema:
                return schema
            place = self._parts.place(schema)
            is_old = place is not None and place.is_old
            if not is_old and schema.keys() - ANNOTATIONS != {"$ref"}:
                return schema
            part = self.part_at(schema["$ref"], schema)
            if part is None:
                return self._alone(schema) if is_old else schema
            schema = part
        return schema

    def _alone(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a reference without the keywords beside it, which mean nothing."""
        if schema.keys() == {"$ref"}:
            return schema
        if id(schema) not in self._plain:
            alone = {"$ref": schema["$ref"]}
            self._parts.adopt(alone, schema)
            self._plain[id(schema)] = schema, alone
        return self._plain[id(schema)][1]  # type: ignore[no-any-return]  # a part is any JSON

    def part_at(self, reference: Json, part: Json) -> Json:
        """Return the part that a reference in a part means; None if that cannot be told."""
        return self._parts.part_at(reference, part)

    def standard_target(self, reference: Json, part: Json) -> str | None:
        """Return the URI that a reference means if it is one of JSON Schema itself."""
        target = self._parts.target(reference, part)
        return target if target is not None and target.startswith(_STANDARD) else None

    def by_type(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a schema of several types as one for each type."""
        types = schema.get("type")
        if not isinstance(types, list) or len(types) == 1:
            return []
        if id(schema) not in self._by_type:
            found = [schema | {"type": one} for one in types]
            for one in found:
                self._parts.adopt(one, schema)
                self._plain[id(one)] = one, one
            self._by_type[id(schema)] = found
        return self._by_type[id(schema)]

    def check(self, part: Json, *, check_formats: bool) -> Callable[[Json], bool] | None:
        """Return a check of the values of a part; None if it depends on references to it."""
        place = self._parts.place(part)
        if place is None or any(
            name.encode() in text for _, text in self.texts for name in _DYNAMIC
        ):
            return None
        return self._validators.make(
            place.document, place.tokens, place.draft, check_formats=check_formats
        )


class Assumption(NamedTuple):
    """What the equality of a pair depends on: pairs that are being compared."""

    least: int  # the least depth of these
    level: int  # the highest level of those that are reached without going into a field; or -1


class PairMemory:
    """The differences of pairs of parts, which may contain themselves: each is found once.

    A pair in itself is taken for equal. So a result that depends on a pair is known after it.
    A `level` is the number of fields and items from the root to a pair. A pair that is reached
    again at its level, as an alternative of itself, must not be taken for equal.
    """

    def __init__(self) -> None:
        # The pairs that are compared, with their depths and levels.
        self._open: dict[Hashable, tuple[int, int]] = {}
        self._equal: set[Hashable] = set()
        # Pairs that are equal if open ones are, in the order in which they were found.
        self._assumed: dict[Hashable, Assumption] = {}
        self._different: dict[Hashable, list[Any]] = {}
        self._repeats = 0
        self._level = 0  # of the innermost open pair
        self._assumption = Assumption(0, -1)  # of that pair

    def differences(
        self,
        pair: Hashable,
        find: Callable[[], list[_Difference]],
        *,
        level: int | None = None,
        find_circular: Callable[[], list[_Difference]] | None = None,
        repeats: bool = False,
    ) -> list[_Difference]:
        """Return the differences of a pair, which `find` finds.

        `find_circular` finds those of a pair that is an alternative of itself. `repeats`: they are
        found again, for another place. Of very many, the first is returned.
        """
        if pair in self._equal:
            return []
        level = len(self._open) if level is None else level
        known = self._open.get(pair) or self._assumed.get(pair)
        if known is not None:
            if known[1] >= level and find_circular is not None:
                return find_circular()
            self._depend(Assumption(*known), level)
            return []
        if pair in self._different:
            if not repeats or self._repeats == _MAX_REPEATS:
                return self._different[pair][:1]
            self._repeats += 1
        return self._compare(pair, find, level)

    def _depend(self, on: Assumption, level: int) -> None:
        """Note an assumption, at a level, on which the innermost open pair depends."""
        least, highest = self._assumption
        if level == self._level:
            highest = max(highest, on.level)
        self._assumption = Assumption(min(least, on.least), highest)

    def _compare(
        self, pair: Hashable, find: Callable[[], list[_Difference]], level: int
    ) -> list[_Difference]:
        outer = self._level, self._assumption
        depth, first = len(self._open), len(self._assumed)
        self._open[pair] = depth, level
        self._level, self._assumption = level, Assumption(depth, -1)
        found = find() or self._different.get(pair, [])[:1]
        del self._open[pair]
        mine = self._assumption
        self._level, self._assumption = outer
        inner = list(islice(self._assumed.items(), first, None))
        for one, _ in inner:
            del self._assumed[one]
        if found:
            self._different[pair] = found
            return found
        if mine.least == depth:
            self._equal.update(dict(inner), (pair,))
            return found
        for one, assumption in inner:
            if assumption.level < level:  # the others may depend on this pair without a field
                self._assumed[one] = Assumption(mine.least, assumption.level)
        self._assumed[pair] = mine
        self._depend(mine, level)
        return found


class Equality:
    """Whether keywords of two documents mean the same, with what they refer to."""

    def __init__(self, old: ResolvedSchema, new: ResolvedSchema) -> None:
        self._old, self._new = old, new
        self._is_one = old.texts == new.texts
        self._pairs = PairMemory()

    def of_parts(self, old: Json, new: Json) -> bool:
        """Whether two parts are the same, and all that they refer to."""
        return self._of(old, new)

    def of_keyword(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether a keyword means the same in two schemas that have it."""
        first, second = old[name], new[name]
        if name == "$ref":
            return self._of_references(old, new)
        if name in _DYNAMIC:
            return self._is_one  # what they refer to depends on the way that leads to them
        if name in _VALUES:
            return encode(first) == encode(second)
        if name in ("type", "unevaluatedItems") and not self._have_same_meaning(name, old, new):
            return False
        if name in _BY_NAME and isinstance(first, dict) and isinstance(second, dict):
            return first.keys() == second.keys() and all(
                self._of(one, second[key]) for key, one in first.items()
            )
        return self._of(first, second)

    def _have_same_meaning(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether the drafts of two schemas say the same about a keyword that both know."""
        drafts = {DRAFTS.index(self._old.draft(old)), DRAFTS.index(self._new.draft(new))}
        if name == "type":  # 1.0 is no integer in draft 4
            return "integer" not in old[name] or len(drafts) == 1 or 0 not in drafts
        return len(drafts) == 1  # of the items that `contains` finds

    def _of(self, old: Json, new: Json) -> bool:
        old, new = self._old.plain(old), self._new.plain(new)
        if isinstance(old, dict) and isinstance(new, dict):
            pair = id(old), id(new)
            return not self._pairs.differences(
                pair, lambda: [] if self._of_objects(old, new) else [pair]
            )
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and all(map(self._of, old, new))
        return encode(old) == encode(new)

    def _of_references(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether the references of two schemas mean the same.

        Those that lead to no part do if they lead to JSON Schema itself, or if all is equal.
        """
        references = old["$ref"], new["$ref"]
        first = self._old.part_at(references[0], old)
        second = self._new.part_at(references[1], new)
        if first is not None and second is not None:
            return self._of(first, second)
        standard = self._old.standard_target(references[0], old)
        if standard is not None and standard == self._new.standard_target(references[1], new):
            return True
        return first is second and references[0] == references[1] and self._is_one

    def _of_objects(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        names = old.keys() - ANNOTATIONS
        return names == new.keys() - ANNOTATIONS and all(
            self.of_keyword(name, old, new) for name in names
        )


def _modern(schema: dict[str, Any], draft: str) -> dict[str, Any]:
    """Return a schema with the keywords of the newest draft in place of older ones.

    Without those that its draft does not know, and those that restrict nothing.
    """
    changed: dict[str, Any] = {}
    number = DRAFTS.index(draft)
    if isinstance(schema.get("items"), list):
        changed["prefixItems"] = schema["items"]
        changed["items"] = schema.get("additionalItems", True)
    for exclusive, end in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if schema.get(exclusive) is True and end in schema:
            changed |= {exclusive: schema[end], end: None}
        elif isinstance(schema.get(exclusive), bool):
            changed[exclusive] = None
    dropped = {name for name, one in changed.items() if one is None}
    dropped.update(
        name
        for name, value in schema.items()
        if name not in changed and (_means_nothing(name, value) or not _knows(number, name, value))
    )
    if not changed and not dropped:
        return schema
    return {name: one for name, one in (schema | changed).items() if name not in dropped}


def _means_nothing(name: str, value: Json) -> bool:
    """Whether a keyword restricts no value."""
    if name in ("minLength", "minItems", "minProperties"):
        return bool(value == 0)
    return (name == "uniqueItems" and value is False) or name == "additionalItems"


def _knows(number: int, name: str, value: Json) -> bool:
    """Whether the draft of this number knows a keyword."""
    if name == "format":
        return number >= _FIRST_DRAFTS_OF_FORMATS.get(value, 0)
    return number >= _FIRST_DRAFTS.get(name, 0)
