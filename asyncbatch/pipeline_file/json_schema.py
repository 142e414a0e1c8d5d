"""The JSON Schema of pipeline files, made of the tables' types: editors complete with it."""

from __future__ import annotations

from typing import Any

from msgspec import json

from asyncbatch.pipeline_file.pipeline import PipelineFile
from asyncbatch.pipeline_file.stream_file import StreamFile
from asyncbatch.secret import Secret

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def pipeline_schema() -> dict[str, Any]:
    """Return the schema of files for `asyncbatch etl`."""
    return _schema(PipelineFile, "asyncbatch pipeline file")


def stream_schema() -> dict[str, Any]:
    """Return the schema of files for `asyncbatch stream`, whose source may be one table."""
    schema = _schema(StreamFile, "asyncbatch pipeline file of a stream")
    properties = schema["$defs"]["StreamFile"]["properties"]
    several = properties["source"]
    properties["source"] = {
        "description": several.pop("description"),
        "anyOf": [several["items"], several],
    }
    file = schema["$defs"]["EventFileTable"]
    file["required"].remove("type")  # a source with a path is a file
    return schema


def _schema(kind: type, title: str) -> dict[str, Any]:
    found: dict[str, Any] = _tidied(json.schema(kind, schema_hook=_of_our_types))
    return {"$schema": _DIALECT, "title": title, **found}


def _of_our_types(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string"}
    raise NotImplementedError(kind.__name__)


def _tidied(part: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Return `part` without null, which TOML does not have, and with what may be text as well."""
    if isinstance(part, list):
        return [_tidied(one) for one in part]
    if not isinstance(part, dict):
        return part
    tidy = {key: _tidied(one) for key, one in part.items()}
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
