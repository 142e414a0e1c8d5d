"""The check of a document against the tables, and their JSON Schema."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from msgspec import inspect, json

from asyncbatch.config.options.forms import PARSERS, quote_value
from asyncbatch.config.pipeline_file.mistakes import Mistake, suggestion
from asyncbatch.core.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.options import KeyPath, Options

_TABLES = inspect.StructType | inspect.DictType
INVALID = object()  # stands for an invalid value


def check(value: object, table: type[Options], mistakes: list[Mistake]) -> Any:
    """Return `value` as a `table`; add the mistakes of an invalid one to `mistakes`."""
    return Checker(mistakes).check(value, inspect.type_info(table), ())


class Checker:
    """Checks values, and adds to `mistakes`. An invalid value becomes INVALID."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes

    def check(self, value: Any, kind: inspect.Type, path: KeyPath) -> Any:  # noqa: PLR0911 - TOML; one case a type
        """Return `value` converted to `kind`."""
        match kind:
            case inspect.Metadata(type=inner, extra=extra):
                if extra and (form := extra.get("form")):
                    try:
                        value = PARSERS[form](value)
                    except ValueError as error:
                        return self._add_mistake(path, str(error))
                    if form == "count" or isinstance(inner, inspect.CustomType):
                        return value
                return self.check(value, inner, path)
            case inspect.StructType():
                return self._table(value, kind, path)
            case inspect.UnionType(types=types):
                return self._union(value, types, path)
            case inspect.VarTupleType(item_type=item, min_length=least):
                return self._array(value, item, least or 0, path)
            case inspect.DictType(value_type=item, min_length=least):
                return self._mapping(value, item, least or 0, path)
            case inspect.LiteralType(values=words):
                return self._choice(value, [str(word) for word in words], path)
            case inspect.AnyType():
                return self._any(value, path)
        return self._scalar(value, kind, path)

    def _scalar(self, value: Any, kind: inspect.Type, path: KeyPath) -> Any:
        if isinstance(kind, inspect.IntType | inspect.FloatType):
            return self._number(value, kind, path)
        if isinstance(kind, inspect.BoolType):
            if isinstance(value, bool):
                return value
            return self._add_mistake(path, f"must be true or false, not {quote_value(value)}")
        assert isinstance(kind, inspect.StrType)
        if not isinstance(value, str):
            return self._add_mistake(path, f"must be a string, not {quote_value(value)}")
        if len(value) < (kind.min_length or 0):
            return self._add_mistake(path, "is empty")
        return str(value)  # plain text, also of a variable

    def _add_mistake(self, path: KeyPath, message: str) -> object:
        self.mistakes.append(Mistake(path, message))
        return INVALID

    def _table(self, value: Any, kind: inspect.StructType, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self._add_mistake(path, f"must be a table{_table_hint(path)}")
        before = len(self.mistakes)
        fields = {field.encode_name: field for field in kind.fields}
        known = [*fields, *([kind.tag_field] if kind.tag_field else [])]
        given = {}
        for key, item in value.items():
            if key in fields:
                found = self.check(item, fields[key].type, (*path, key))
                given[key] = None if found is INVALID else found
            elif key != kind.tag_field:
                near = suggestion(key, known) or f"; the known keys are {', '.join(sorted(known))}"
                self._add_mistake((*path, key), f"unknown key{near}")
        for key, field in fields.items():
            if field.required and key not in value:
                self._add_mistake((*path, key), f"is missing{_kind_name(field.type)}")
        for below, message in kind.cls.contradictions(given):  # type: ignore[attr-defined]  # all are Options
            self._add_mistake((*path, *below), message)
        if len(self.mistakes) > before:
            return INVALID
        return kind.cls(**{fields[key].name: item for key, item in given.items()})

    def _union(self, value: Any, types: Sequence[inspect.Type], path: KeyPath) -> Any:
        kinds = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
        tables = {
            kind.tag: kind
            for kind in kinds
            if isinstance(kind, inspect.StructType) and kind.tag is not None
        }
        if tables:
            return self._tagged(value, tables, path)
        is_table = isinstance(value, dict)
        near = [kind for kind in kinds if isinstance(kind, _TABLES) == is_table] or kinds
        for kind in near:
            trial = Checker([])
            found = trial.check(value, kind, path)
            if found is not INVALID and not trial.mistakes:
                return found
        return self.check(value, near[0], path)  # no kind fits: report the mistakes for the nearest

    def _tagged(self, value: Any, tables: dict[Any, inspect.StructType], path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self._add_mistake(path, f"must be a table{_table_hint(path)}")
        words = tuple(tables)
        tag_field = next(iter(tables.values())).tag_field or ""
        if tag_field not in value:
            return self._add_mistake((*path, tag_field), f"is missing: one of {', '.join(words)}")
        found = self._choice(value[tag_field], words, (*path, tag_field))
        return INVALID if found is INVALID else self._table(value, tables[found], path)

    def _choice(self, value: Any, words: Sequence[str], path: KeyPath) -> Any:
        for word in words:
            if value == word:
                return word
        names = ", ".join(words)
        near = suggestion(value, words) if isinstance(value, str) else ""
        what = f"one of {names}" if len(words) > 1 else names
        return self._add_mistake(path, f"must be {what}, not {quote_value(value)}{near}")

    def _array(self, value: Any, item: inspect.Type, least: int, path: KeyPath) -> Any:
        if not isinstance(value, list):
            return self._add_mistake(path, f"must be an array{_array_hint(item, path)}")
        if len(value) < least:
            return self._add_mistake(path, "is empty")
        found = [self.check(one, item, (*path, index)) for index, one in enumerate(value)]
        return tuple(None if one is INVALID else one for one in found)

    def _mapping(self, value: Any, item: inspect.Type, least: int, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self._add_mistake(path, "must be a table")
        if len(value) < least:
            return self._add_mistake(path, "is empty")
        found = {key: self.check(one, item, (*path, key)) for key, one in value.items()}
        return {key: None if one is INVALID else one for key, one in found.items()}

    def _number(self, value: Any, kind: inspect.IntType | inspect.FloatType, path: KeyPath) -> Any:
        takes = int if isinstance(kind, inspect.IntType) else int | float
        if not isinstance(value, takes) or isinstance(value, bool):
            what = "a whole number" if takes is int else "a number"
            return self._add_mistake(path, f"must be {what}, not {quote_value(value)}")
        if takes is not int:
            try:
                value = float(value)
            except OverflowError:  # an integer of hundreds of digits
                value = math.inf
            if not math.isfinite(value):
                return self._add_mistake(path, f"cannot be {value:g}")
        if kind.ge is not None and value < kind.ge:
            return self._add_mistake(
                path, f"is {quote_value(value)}; it cannot be less than {kind.ge:g}"
            )
        if kind.gt is not None and value <= kind.gt:
            return self._add_mistake(path, f"is {value:g}; it must be more than {kind.gt:g}")
        return value

    def _any(self, value: Any, path: KeyPath) -> Any:
        """Return a value as JSON can represent it."""
        if isinstance(value, dict):
            found: Any = {key: self._any(one, (*path, key)) for key, one in value.items()}
            return INVALID if INVALID in found.values() else found
        if isinstance(value, list):
            found = [self._any(one, (*path, index)) for index, one in enumerate(value)]
            return INVALID if INVALID in found else found
        if isinstance(value, datetime | date | time):
            return value.isoformat().replace("+00:00", "Z")
        if isinstance(value, float) and not math.isfinite(value):
            return self._add_mistake(path, f"cannot be {value}: JSON cannot represent it")
        return str(value) if isinstance(value, str) else value


def _kind_name(kind: inspect.Type) -> str:
    """Return the name of a type in messages."""
    extra = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    description = str((extra or {}).get("description", "")).removesuffix(".")
    return f": {description[:1].lower()}{description[1:]}" if description else ""


def _table_hint(path: KeyPath) -> str:
    return f": write [{path[0]}]" if len(path) == 1 else ""


def _array_hint(item: inspect.Type, path: KeyPath) -> str:
    if isinstance(item, inspect.UnionType) and len(path) == 1:
        return f" of tables: write [[{path[0]}]]"
    return ': write ["…"]'


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def pipeline_schema() -> dict[str, Any]:
    """Return the schema of files for `asyncbatch etl`."""
    from asyncbatch.config.pipeline_file.files import PipelineFile

    return schema_of(PipelineFile, "asyncbatch pipeline file")


def stream_schema() -> dict[str, Any]:
    """Return the schema of files for `asyncbatch stream`, whose source may be one table."""
    from asyncbatch.config.pipeline_file.files import StreamFile

    schema = schema_of(StreamFile, "asyncbatch pipeline file of a stream")
    properties = schema["$defs"]["StreamFile"]["properties"]
    several = properties["source"]
    properties["source"] = {
        "description": several.pop("description"),
        "anyOf": [several["items"], several],
    }
    for name in ("EventFilesTable", "EventFileTable"):  # `paths` or `path` tells them
        schema["$defs"][name]["required"].remove("type")
    return schema


def schema_of(kind: type, title: str) -> dict[str, Any]:
    """Return the schema of a document with the fields of `kind`."""
    found: dict[str, Any] = _simplify(json.schema(kind, schema_hook=_schema_of_own_type))
    return {"$schema": _DIALECT, "title": title, **found}


def _schema_of_own_type(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string"}
    raise NotImplementedError(kind.__name__)


def _simplify(part: Any) -> Any:
    """Return `part` without null, which TOML lacks, and with text where text is accepted."""
    if isinstance(part, list):
        return [_simplify(one) for one in part]
    if not isinstance(part, dict):
        return part
    tidy = {key: _simplify(one) for key, one in part.items()}
    tidy |= tidy.pop("as", {})
    if "default" in tidy and tidy["default"] in (None, [], {}):
        del tidy["default"]
    if isinstance(tidy.get("anyOf"), list):
        ways = [way for way in tidy["anyOf"] if way != {"type": "null"}]
        if len(ways) == 1:
            del tidy["anyOf"]
            return {**ways[0], **tidy}
        tidy["anyOf"] = ways
    return tidy
