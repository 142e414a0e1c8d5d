"""The comparison of two JSON Schemas: values that one allows and the other does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.formats.decoder import encode
from asyncbatch.transforms.profile.resolved_schema import Equality, PairMemory, ResolvedSchema
from asyncbatch.transforms.profile.summary import child_path
from asyncbatch.transforms.profile.widen import ANNOTATIONS
from asyncbatch.transforms.schema_drafts import DRAFT_4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.schema_file import SchemaSource

_ANY: dict[str, Any] = {}  # one object: pairs are known by their identity
# The types of which a schema can list all values.
_LISTED: dict[str, list[Json]] = {"boolean": [False, True], "null": [None]}
ALL_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_MAX_SHOWN = 60  # characters of a value in a message
# The smallest and the largest size of each kind: a lower number restricts the other way round.
_LEAST = ("minLength", "minItems", "minProperties")
_MOST = ("maxLength", "maxItems", "maxProperties")
_RANGE = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
# The type that a keyword restricts; it means nothing for values of other types.
_ABOUT = {
    "multipleOf": "number",
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "contains", "prefixItems"), "array"),
    **dict.fromkeys(("minProperties", "maxProperties", "propertyNames"), "object"),
    **dict.fromkeys(("patternProperties", "dependentRequired"), "object"),
}
# The keywords that lift each keyword, for some values: without them, it restricts more.
_APPLIED = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"),
    *("$ref", "$dynamicRef", "$recursiveRef"),
)
_OBJECT_LIFTS = {
    "additionalProperties": ("patternProperties",),
    "unevaluatedProperties": ("patternProperties", "additionalProperties", *_APPLIED),
}
_ARRAY_LIFTS = {
    "items": ("prefixItems",),
    "unevaluatedItems": ("prefixItems", "items", "contains", *_APPLIED),
}
_OWN_RULES = frozenset(
    {"type", "enum", "const", "required", "properties", "additionalProperties", "items", *_RANGE}
)


class SchemaChange(Struct, frozen=True):
    """A restriction that one schema has, and the other has not."""

    path: str  # of the field
    rule: str  # the keyword
    before: str
    after: str


def restrictions(
    old: Json | SchemaSource, new: Json | SchemaSource, *, exact: bool = False
) -> list[SchemaChange]:
    """Return the restrictions of `new` that `old` lacks; none: values of `old` satisfy `new`.

    A field that only `new` names, and `old` allows with any value, is one only if it is required or
    forbidden; with `exact`, also if it is restricted. A reference to a file can be followed if the
    schema is a `SchemaSource`.
    """
    before, after = ResolvedSchema(old), ResolvedSchema(new)
    found = _Comparison(before, after, exact=exact).compare(before.root, after.root, "$")
    return list(dict.fromkeys(found))


class _Comparison:
    """Compares the parts of two schemas."""

    def __init__(self, old: ResolvedSchema, new: ResolvedSchema, *, exact: bool) -> None:
        self._old, self._new, self._exact = old, new, exact
        self._equality = Equality(old, new)
        self._pairs = PairMemory()
        self._level = 0  # the fields and items from the root to the present parts

    def compare(self, old: Json, new: Json, path: str) -> list[SchemaChange]:
        """Return the restrictions of `new` that `old` does not have."""
        old, new = self._old.plain(old), self._new.plain(new)
        if _takes_all(new) or old is False:
            return []
        if new is False:
            return [SchemaChange(path, "false", _shown(old), "no value")]
        old = _ANY if old is True else old
        return self._pairs.differences(
            (id(old), id(new)),
            lambda: self._changes(old, new, path),
            level=self._level,
            find_circular=lambda: self._circular_changes(old, new, path),
            repeats=True,
        )

    def _circular_changes(
        self, old: dict[str, Any], new: dict[str, Any], path: str
    ) -> list[SchemaChange]:
        """Compare parts that are alternatives of themselves, which says nothing about a value."""
        if self._equality.of_parts(old, new):
            return []
        return [SchemaChange(path, "anyOf", _shown(old), "an alternative of itself")]

    def _changes(self, old: dict[str, Any], new: dict[str, Any], path: str) -> list[SchemaChange]:
        if _is_union(old):
            found = [change for one in old["anyOf"] for change in self.compare(one, new, path)]
        elif _is_union(new):
            found = self._compare_with_union(old, new, path)
        else:
            self._level += 1
            found = list(self._compare_keywords(old, new, path))
            self._level -= 1
        is_kept = bool(found) and (self._equality.of_parts(old, new) or self._all_satisfy(old, new))
        return [] if is_kept else found

    def _compare_with_union(
        self, old: dict[str, Any], new: dict[str, Any], path: str
    ) -> list[SchemaChange]:
        """Compare with the alternatives of `new`: all of `old`, or each of its types."""
        fewest: list[SchemaChange] | None = None
        for one in new["anyOf"]:
            found = self.compare(old, one, path)
            if not found:
                return []
            if fewest is None or len(found) < len(fewest):
                fewest = found
        kinds = self._old.by_type(old)
        if kinds and not any(self.compare(kind, new, path) for kind in kinds):
            return []
        return fewest or []

    def _all_satisfy(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether `old` has only a few values, and all of them satisfy `new`."""
        types, values = _types(old), _values(old)
        if values is None:
            if not types <= _LISTED.keys():
                return False
            values = [value for kind in sorted(types) for value in _LISTED[kind]]
        before = self._old.check(old, check_formats=False)
        after = self._new.check(new, check_formats=True)
        if before is None or after is None:
            return False
        return all(after(value) for value in values if _is_of_types(value, types) and before(value))

    def _compare_keywords(
        self, old: dict[str, Any], new: dict[str, Any], path: str
    ) -> Iterator[SchemaChange]:
        before, after = _types(old), _types(new)
        common = {kind for kind in before if _allows(after, kind)}
        if common != before:
            yield SchemaChange(path, "type", _shown_types(before), _shown_types(after))
        elif self._excludes_floats(old, new):
            yield SchemaChange(path, "type", "integer, also as 1.0", "integer of draft 4, not 1.0")
        if "number" in before | after and "integer" in common:
            common.add("number")
        yield from _compare_values(old, new, path)
        if common & {"number", "integer"}:
            yield from _compare_ranges(old, new, path)
        for name, value in new.items():
            if name in ANNOTATIONS or name in _OWN_RULES or self._is_kept(name, old, new):
                continue
            if not _concerns(name, common) or _is_looser(name, old, value):
                continue
            before_it, after_it = _shown(old.get(name)), _shown(value)
            if before_it == after_it:
                after_it = "the same with another meaning"
            yield SchemaChange(path, name, before_it, after_it)
        if "object" in common:
            yield from self._compare_lifted(_OBJECT_LIFTS, old, new, path)
            yield from self._compare_objects(old, new, path)
        if "array" in common:
            yield from self._compare_lifted(_ARRAY_LIFTS, old, new, path)
            if "contains" in new and "minContains" not in new and old.get("minContains", 1) < 1:
                yield SchemaChange(path, "minContains", _shown(old["minContains"]), "1")
            yield from self.compare(old.get("items", True), new.get("items", True), f"{path}[]")

    def _excludes_floats(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether 1.0 is no integer any more."""
        is_other = self._new.draft(new) == DRAFT_4 != self._old.draft(old)
        return is_other and "integer" in _types(old) and "number" not in _types(new)

    def _is_kept(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        return name in old and self._equality.of_keyword(name, old, new)

    def _compare_lifted(
        self, lifts: dict[str, tuple[str, ...]], old: dict[str, Any], new: dict[str, Any], path: str
    ) -> Iterator[SchemaChange]:
        """Yield the keywords of `old` that `new` lacks, and that lift other keywords.

        For instance, `additionalProperties` is not about the fields of `patternProperties`.
        """
        for name, lifters in lifts.items():
            if not _takes_all(new.get(name, True)):
                for one in lifters:
                    if one in old and one not in new:
                        yield SchemaChange(path, one, _shown(old[one]), "none")

    def _compare_objects(
        self, old: dict[str, Any], new: dict[str, Any], path: str
    ) -> Iterator[SchemaChange]:
        here = "" if path == "$" else path
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield SchemaChange(child_path(here, name), "required", "optional", "required")
        names, more = old.get("properties", {}), old.get("additionalProperties", True)
        new_names, new_more = new.get("properties", {}), new.get("additionalProperties", True)
        patterns = old.get("patternProperties", {})
        if not _takes_all(new.get("unevaluatedProperties", True)):
            for name in sorted(names.keys() - new_names.keys()):
                yield SchemaChange(child_path(here, name), "properties", "named", "not named")
        for name in sorted({*names, *new_names}):
            one, other = names.get(name, more), new_names.get(name, new_more)
            if name not in names and any(_may_match(pattern, name) for pattern in patterns):
                one = True  # patterns may allow more than `additionalProperties`
            is_new = name not in names and _takes_all(more)
            if is_new and other is not False and not self._exact:
                continue
            if other is False and one is not False:
                change = "additionalProperties", "allowed", "not allowed"
                yield SchemaChange(child_path(here, name), *change)
            else:
                yield from self.compare(one, other, child_path(here, name))
        if new_more is False and more is not False:
            yield SchemaChange(path, "additionalProperties", "other fields", "no other fields")
        else:
            yield from self.compare(more, new_more, f"{here}.*" if here else "*")


def _compare_values(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[SchemaChange]:
    """Yield the values of `old` that the list of `new` has not."""
    after = _values(new)
    if after is None:
        return
    before = _values(old)
    if before is None:
        yield SchemaChange(path, "enum", "any value", _shown(after))
    elif lost := [one for one in before if encode(one) not in set(map(encode, after))]:
        yield SchemaChange(path, "enum", _shown(lost), "not allowed")


def _compare_ranges(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[SchemaChange]:
    """Yield the ends of ranges that are narrower."""
    for name, exclusive, sign in (("minimum", _RANGE[1], 1), ("maximum", _RANGE[3], -1)):
        before = _ends(old, name, exclusive, sign)
        after = _ends(new, name, exclusive, sign)
        if after and (not before or max(after) > max(before)):
            rule = exclusive if max(after)[1] else name
            shown = "none"
            if before:
                shown = _shown(sign * max(before)[0])
                if max(before)[1] != max(after)[1]:
                    shown = f"{exclusive if max(before)[1] else name} {shown}"
            yield SchemaChange(path, rule, shown, _shown(sign * max(after)[0]))


def _ends(schema: dict[str, Any], name: str, exclusive: str, sign: int) -> list[tuple[Any, bool]]:
    """Return the ends of a range; a larger one is narrower."""
    return [(sign * schema[key], key == exclusive) for key in (name, exclusive) if key in schema]


def _concerns(name: str, types: set[str]) -> bool:
    """Whether a keyword may restrict values of some types."""
    about = _ABOUT.get(name)
    return about is None or about in types or (about == "number" and "integer" in types)


def _is_looser(name: str, old: dict[str, Any], value: Json) -> bool:
    """Whether a size of a schema allows all that the size of `old` allows."""
    if name == "minContains":
        return bool(value <= old.get(name, 1))
    if name not in old:
        return False
    if name == "multipleOf" and type(old[name]) is type(value) is int:
        return bool(old[name] % value == 0)
    return (name in _LEAST and old[name] >= value) or (name in _MOST and old[name] <= value)


def _may_match(pattern: str, name: str) -> bool:
    """Whether a pattern of JavaScript, which may be none of Python's, matches a name."""
    try:
        return re.search(pattern, name) is not None
    except (re.error, RecursionError):
        return True


def _takes_all(schema: Json) -> bool:
    return schema is True or schema == {}


def _is_union(schema: dict[str, Any]) -> bool:
    """Whether a schema has only alternatives."""
    return schema.keys() - ANNOTATIONS == {"anyOf"}


def _values(schema: dict[str, Any]) -> list[Json] | None:
    """Return the values that a schema lists, None if it lists none."""
    if "const" not in schema:
        return schema.get("enum")
    value = schema["const"]
    listed = schema.get("enum", [value])
    return [value] if any(_is_same(value, one) for one in listed) else []


def _is_same(one: Json, other: Json) -> bool:
    """Whether two values are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return (type(one) is bool) == (type(other) is bool) and bool(one == other)


def _types(schema: dict[str, Any]) -> frozenset[str]:
    named = schema.get("type")
    if named is not None:
        return frozenset({named} if isinstance(named, str) else named)
    if (values := _values(schema)) is not None:
        return frozenset(map(_type_of, values))
    return ALL_TYPES - {"integer"}


def _type_of(value: Json) -> str:
    kinds: dict[type, str] = {
        dict: "object", list: "array", str: "string", bool: "boolean", int: "integer",
        float: "number",
    }  # fmt: skip
    return kinds.get(type(value), "null")


def _is_of_types(value: Json, types: frozenset[str]) -> bool:
    """Whether a value has one of these types. 1.0 is an integer, too."""
    is_whole = type(value) is float and value.is_integer()
    return _allows(types, "integer" if is_whole else _type_of(value))


def _allows(types: frozenset[str], kind: str) -> bool:
    return kind in types or (kind == "integer" and "number" in types)


def _shown_types(types: frozenset[str]) -> str:
    return "any type" if types >= ALL_TYPES - {"integer"} else "|".join(sorted(types))


def _shown(value: Json) -> str:
    """Return a value as JSON, shortened."""
    if value is None:
        return "none"
    text = encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
