"""A JSON Schema that all profiled values satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.transforms.profile.text_formats import SCHEMA_FORMATS, TESTS

if TYPE_CHECKING:
    from asyncbatch.transforms.profile.fields import Field
    from asyncbatch.transforms.profile.scalars import Scalars

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def infer_schema(field: Field, *, strict: bool = False) -> dict[str, Any]:
    """Return a schema that the values of a field satisfy. It makes maps in `field`.

    `strict`: it allows only the fields that were seen, and texts of the format that all have.
    """
    field.find_maps()
    return _schema(field, strict=strict)


def _schema(field: Field, *, strict: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if types := schema_types(field):
        schema["type"] = types[0] if len(types) == 1 else types
    if strict and field.strings is not None and (name := common_format(field.strings)):
        schema["format"] = name
    if field.is_cut:
        return schema
    if field.objects:
        schema.update(_object_keywords(field, strict=strict))
    if field.items is not None:
        schema["items"] = _schema(field.items, strict=strict)
    return schema


def _object_keywords(field: Field, *, strict: bool) -> dict[str, Any]:
    if field.map_values is not None:
        keywords: dict[str, Any] = {}
        if strict and field.map_keys is not None and (name := common_format(field.map_keys)):
            keywords["propertyNames"] = {"format": name}
        return keywords | {"additionalProperties": _schema(field.map_values, strict=strict)}
    keywords = {}
    # A field without values is only known to be a map, elsewhere.
    names = sorted(name for name, one in field.names.items() if one.count)
    if names:
        keywords["properties"] = {name: _schema(field.names[name], strict=strict) for name in names}
    if required := [name for name in names if field.names[name].count == field.objects]:
        keywords["required"] = required
    if strict:
        keywords["additionalProperties"] = False
    return keywords


def schema_types(field: Field) -> list[str]:
    """Return the types of JSON Schema that the values have: a number includes integers."""
    types = list(field.types())
    if "number" in types and "integer" in types:
        types.remove("integer")
    return sorted(types)


def common_format(texts: Scalars) -> str | None:
    """Return a format of JSON Schema that all texts have, or None."""
    found = texts.formats_of_all() & SCHEMA_FORMATS
    return next((name for name in TESTS if name in found), None)
