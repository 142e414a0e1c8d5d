"""The widening of a JSON Schema, so that profiled values satisfy it, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.transforms.profile.infer import infer_schema, schema_types

if TYPE_CHECKING:
    from asyncbatch.core.records import Json
    from asyncbatch.transforms.profile.fields import Field

    Schema = dict[str, Any] | bool

# They do not restrict values.
ANNOTATIONS = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "$vocabulary", "definitions", "id"),
        *("contentEncoding", "contentMediaType", "contentSchema", "default", "deprecated"),
        *("description", "examples", "readOnly", "title", "writeOnly"),
    }
)
# The keywords that restrict each type, and that we can only drop.
_DROPPED = {
    "string": ("pattern",),
    "number": ("multipleOf",),
    "array": ("uniqueItems",),
    "object": ("minProperties", "maxProperties", "propertyNames"),
}
_WIDENED = frozenset(
    {
        *("type", "enum", "const", "format", "items", "properties", "required"),
        *("additionalProperties", "minLength", "maxLength", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
_UNDERSTOOD = ANNOTATIONS | _WIDENED | {name for names in _DROPPED.values() for name in names}


def widen_schema(schema: Schema, field: Field, *, strict: bool = False) -> Schema:
    """Return a schema for the values of `schema` and those of a field.

    It takes parts of `field`. Values that satisfy `schema` satisfy the result: no restriction is
    added. `strict` is for the parts that are new; see `infer_schema`.
    """
    return _Widening(strict=strict).widen(schema, field)


class _Widening:
    """Widens a schema and its parts."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def widen(self, schema: Schema, field: Field) -> Schema:
        """Return a schema for the values of `schema` and those of a field."""
        if schema is True or schema == {} or not field.count:
            return schema
        if schema is False or not isinstance(schema, dict):
            return self._infer(field)
        if not _is_understood(schema):
            return self._add_alternative(schema, field)
        widened = dict(schema)
        self._widen_values(widened, field)
        if field.strings is not None:
            _widen_texts(widened, field)
        if field.integers is not None or field.numbers is not None:
            _widen_numbers(widened, field)
        if field.arrays:
            self._widen_arrays(widened, field)
        if field.objects:
            self._widen_objects(widened, field)
        return widened

    def _infer(self, field: Field) -> dict[str, Any]:
        return infer_schema(field, strict=self._strict)

    def _add_alternative(self, schema: dict[str, Any], field: Field) -> Schema:
        """Return `schema` or the schema of the field, because some keywords cannot be widened."""
        rest = {name: one for name, one in schema.items() if name not in ANNOTATIONS}
        kept = {name: one for name, one in schema.items() if name in ANNOTATIONS}
        if rest.keys() == {"anyOf"} and rest["anyOf"]:
            # The last alternative: an earlier update may have added it.
            *others, last = rest["anyOf"]
            return kept | {"anyOf": [*others, self.widen(last, field)]}
        return kept | {"anyOf": [rest, self._infer(field)]}

    def _widen_values(self, schema: dict[str, Any], field: Field) -> None:
        if "type" in schema:
            named = schema["type"]
            types = {named} if isinstance(named, str) else set(named)
            types.update(schema_types(field))
            if "number" in types:
                types.discard("integer")
            schema["type"] = next(iter(types)) if len(types) == 1 else sorted(types)
        for name in ("enum", "const"):
            if name in schema:
                allowed = schema.pop(name)
                seen = _all_values(field)
                if seen is not None:
                    given = allowed if name == "enum" else [allowed]
                    more = [one for one in seen if not any(_equal(one, other) for other in given)]
                    values = [*given, *more]
                    schema |= {"const": allowed} if [allowed] == values else {"enum": values}

    def _widen_arrays(self, schema: dict[str, Any], field: Field) -> None:
        _drop(schema, "array")
        _lower(schema, "minItems", field.fewest)
        _raise(schema, "maxItems", field.most)
        if field.is_cut:
            schema.pop("items", None)
        elif "items" in schema and field.items is not None:
            schema["items"] = self.widen(schema["items"], field.items)

    def _widen_objects(self, schema: dict[str, Any], field: Field) -> None:
        _drop(schema, "object")
        if field.is_cut:
            for name in ("properties", "additionalProperties", "required"):
                schema.pop(name, None)
            return
        if "properties" not in schema and schema.get("additionalProperties", True) is not True:
            field.find_maps()
        properties = dict(schema.get("properties", {}))
        if field.map_values is not None:
            schema.pop("required", None)
            for name, one in properties.items():
                properties[name] = self.widen(one, field.map_values)
            if "additionalProperties" in schema:
                rest = schema["additionalProperties"]
                schema["additionalProperties"] = self.widen(rest, field.map_values)
        else:
            self._widen_properties(schema, properties, field)
        if properties:
            schema["properties"] = properties

    def _widen_properties(
        self, schema: dict[str, Any], properties: dict[str, Schema], field: Field
    ) -> None:
        if "required" in schema:
            names = field.names
            required = [
                name
                for name in schema["required"]
                if name in names and names[name].count == field.objects
            ]
            schema["required"] = required
            if not required:
                del schema["required"]
        for name, one in sorted(field.names.items()):
            rest = schema.get("additionalProperties", True)
            if name in properties:
                properties[name] = self.widen(properties[name], one)
            elif rest is False:
                properties[name] = self._infer(one)
            elif rest is True or rest == {}:
                properties[name] = {}  # it could have any value: a type would be a restriction
            else:
                schema["additionalProperties"] = self.widen(rest, one)


def _widen_texts(schema: dict[str, Any], field: Field) -> None:
    texts = field.strings
    assert texts is not None
    _drop(schema, "string")
    shortest, longest = texts.lengths()
    _lower(schema, "minLength", shortest)
    _raise(schema, "maxLength", longest)
    if "format" in schema and schema["format"] not in texts.formats_of_all():
        del schema["format"]


def _widen_numbers(schema: dict[str, Any], field: Field) -> None:
    _drop(schema, "number")
    found = [one.extremes() for one in (field.integers, field.numbers) if one is not None]
    low, high = min(one[0] for one in found), max(one[1] for one in found)
    _lower(schema, "minimum", low)
    _raise(schema, "maximum", high)
    if "exclusiveMinimum" in schema and schema["exclusiveMinimum"] >= low:
        del schema["exclusiveMinimum"]
        schema["minimum"] = min(low, schema.get("minimum", low))
    if "exclusiveMaximum" in schema and schema["exclusiveMaximum"] <= high:
        del schema["exclusiveMaximum"]
        schema["maximum"] = max(high, schema.get("maximum", high))


def _is_understood(schema: dict[str, Any]) -> bool:
    """Whether all keywords are known, with the values that they have since draft 6."""
    if not schema.keys() <= _UNDERSTOOD:
        return False
    bounds = (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
    return not any(type(one) is bool for one in bounds) and not isinstance(
        schema.get("items"), list
    )


def _all_values(field: Field) -> list[Json] | None:
    """Return all values of a field, or None if they are too many, arrays or objects."""
    scalars = field.scalars()
    if field.arrays or field.objects or not all(one.is_complete for one in scalars):
        return None
    found: list[Json] = [value for one in scalars for value in one.all_values()]
    found += [None] if field.nulls else []
    found += [True] if field.trues else []
    return found + ([False] if field.falses else [])


def _equal(one: Json, other: Json) -> bool:
    """Whether two scalars are the same JSON value: 1 and 1.0 are, 1 and true are not."""
    return (type(one) is bool) == (type(other) is bool) and bool(one == other)


def _drop(schema: dict[str, Any], kind: str) -> None:
    for name in _DROPPED[kind]:
        schema.pop(name, None)


def _lower(schema: dict[str, Any], name: str, value: float) -> None:
    if name in schema:
        schema[name] = min(schema[name], value)


def _raise(schema: dict[str, Any], name: str, value: float) -> None:
    if name in schema:
        schema[name] = max(schema[name], value)
