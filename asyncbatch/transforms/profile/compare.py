"""The comparison of two JSON Schemas: values that one allows and the other does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.formats.decoder import encode
from asyncbatch.transforms.profile.resolved_schema import Equality, ResolvedSchema
from asyncbatch.transforms.profile.summary import child_path
from asyncbatch.transforms.profile.widen import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import Json

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


def restrictions(old: Json, new: Json, *, exact: bool = False) -> list[SchemaChange]:
    """Return the restrictions of `new` that `old` lacks; none: values of `old` satisfy `new`.

    A field that only `new` names, and `old` allows with any value, is one only if it is required or
    forbidden; with `exact`, also if it is restricted.
    """
    return list(dict.fromkeys(_Comparison(old, new, exact=exact).compare(old, new, "$")))


class _Comparison:
    """Compares the parts of two schemas."""

    def __init__(self, old: Json, new: Json, *, exact: bool) -> None:
        self._old, self._new, self._exact = ResolvedSchema(old), ResolvedSchema(new), exact
        self._equality = Equality(self._old, self._new)
        self._open: set[tuple[int, int]] = set()  # the pairs that are compared, by their ids

    def compare(self, old: Json, new: Json, path: str) -> Iterator[SchemaChange]:
        """Yield the restrictions of `new` that `old` does not have."""
        old, new = self._old.plain(old), self._new.plain(new)
        pair = id(old), id(new)
        if _takes_all(new) or old is False or pair in self._open:
            return
        if new is False:
            yield SchemaChange(path, "false", _shown(old), "no value")
            return
        self._open.add(pair)
        old = {} if old is True else old
        if _is_union(old):
            for one in old["anyOf"]:
                yield from self.compare(one, new, path)
        elif _is_union(new):
            found = [list(self.compare(old, one, path)) for one in new["anyOf"]]
            if found and all(found):
                yield from min(found, key=len)
        else:
            yield from self._compare_keywords(old, new, path)
        self._open.discard(pair)

    def _compare_keywords(
        self, old: dict[str, Any], new: dict[str, Any], path: str
    ) -> Iterator[SchemaChange]:
        before, after = _types(old), _types(new)
        common = {kind for kind in before if _allows(after, kind)}
        if common != before:
            yield SchemaChange(path, "type", _shown_types(before), _shown_types(after))
        if "number" in before | after and "integer" in common:
            common.add("number")
        yield from _compare_values(old, new, path)
        if common & {"number", "integer"}:
            yield from _compare_ranges(old, new, path)
        for name, value in new.items():
            if name in ANNOTATIONS or name in _OWN_RULES or self._is_kept(name, old, new):
                continue
            about = _ABOUT.get(name)
            if (
                about is not None
                and not _allows(frozenset(common), about)
                and not (about == "number" and "integer" in common)
            ):
                continue
            if _is_looser(name, old, value):
                continue
            before_it, after_it = _shown(old.get(name)), _shown(value)
            if before_it == after_it:
                after_it = "the same with other references"
            yield SchemaChange(path, name, before_it, after_it)
        if "object" in common:
            yield from self._compare_lifted(_OBJECT_LIFTS, old, new, path)
            yield from self._compare_objects(old, new, path)
        if "array" in common:
            yield from self._compare_lifted(_ARRAY_LIFTS, old, new, path)
            if "contains" in new and "minContains" not in new and old.get("minContains", 1) < 1:
                yield SchemaChange(path, "minContains", _shown(old["minContains"]), "1")
            yield from self.compare(old.get("items", True), new.get("items", True), f"{path}[]")

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


def _is_looser(name: str, old: dict[str, Any], value: Json) -> bool:
    """Whether a size of a schema allows all that the size of `old` allows."""
    if name == "minContains":
        return bool(value <= old.get(name, 1))
    if name not in old:
        return False
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
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


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
