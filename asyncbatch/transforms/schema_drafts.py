"""Drafts of JSON Schema: the draft of each document, and the content keywords of its draft."""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, Any

from asyncbatch.formats.validator import make_validator

if TYPE_CHECKING:
    from asyncbatch.core.records import Json

DRAFT_4 = "http://json-schema.org/draft-04/schema"
DRAFT_6 = "http://json-schema.org/draft-06/schema"
DRAFT_7 = "http://json-schema.org/draft-07/schema"
LATEST_DRAFT = "https://json-schema.org/draft/2020-12/schema"
DRAFTS = (
    DRAFT_4,
    DRAFT_6,
    DRAFT_7,
    "https://json-schema.org/draft/2019-09/schema",
    LATEST_DRAFT,
)
# Keywords whose values are data, not schemas.
DATA_KEYWORDS = ("enum", "const", "examples", "default")
# Keywords whose values map names to schemas: the names are not keywords.
NAME_KEYWORDS = (
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependencies",
)
_CONTENT_KEYWORDS = ("contentEncoding", "contentMediaType")


def known_draft(named: str) -> str | None:
    """Return the draft of a `$schema`, None if it is unknown."""
    plain = named.removesuffix("#").replace("https:", "http:", 1)
    return next((draft for draft in DRAFTS if draft.replace("https:", "http:", 1) == plain), None)


def draft_of(schema: Json, default: str) -> str:
    """Return the draft that a schema names, or else `default`."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    return (isinstance(named, str) and known_draft(named)) or default


def with_draft(schema: Json, draft: str, *, check_content: bool) -> Json:
    """Return a document as the library takes it: it names its draft, and checks only its content.

    The library takes a document without `$schema` for one of the latest draft. It checks content in
    drafts 6 and 7. But drafts before 7 have no such keywords, and in 7 they are annotations.
    """
    schema = _without_unchecked(schema, draft, check_content=check_content, are_names=False)
    if isinstance(schema, dict) and "$schema" not in schema and draft != LATEST_DRAFT:
        return {"$schema": draft, **schema}
    return schema


def _without_unchecked(value: Json, draft: str, *, check_content: bool, are_names: bool) -> Json:
    """Return a copy of a schema, or of names and their schemas, without unchecked keywords."""
    if isinstance(value, list):
        return [
            _without_unchecked(item, draft, check_content=check_content, are_names=False)
            for item in value
        ]
    if not isinstance(value, dict):
        return value
    dropped: tuple[str, ...] = ()
    if not are_names:
        draft = draft_of(value, draft)
        if draft in (DRAFT_4, DRAFT_6) or (draft == DRAFT_7 and not check_content):
            dropped = _CONTENT_KEYWORDS
    return {
        key: item
        if key in DATA_KEYWORDS and not are_names
        else _without_unchecked(
            item,
            draft,
            check_content=check_content,
            are_names=key in NAME_KEYWORDS and not are_names,
        )
        for key, item in value.items()
        if key not in dropped
    }


class ContentEncoding:
    """The keyword `contentEncoding`: a text must be base64, if the keyword says so."""

    def __init__(self, parent: dict[str, Any], value: Any, path: list[str | int]) -> None:  # noqa: ARG002 - the library's signature
        self._encoding = value

    def validate(self, instance: Any) -> None:
        """Raise ValueError for a text that is not encoded like this."""
        if self._encoding == "base64" and isinstance(instance, str) and _decoded(instance) is None:
            raise ValueError(
                f'{json.dumps(instance)} is not compliant with "base64" content encoding'
            )


class ContentMediaType:
    """The keyword `contentMediaType`: a text must be JSON, if the keyword says so."""

    def __init__(self, parent: dict[str, Any], value: Any, path: list[str | int]) -> None:  # noqa: ARG002 - the library's signature
        self._is_json = value == "application/json"
        self._is_base64 = parent.get("contentEncoding") == "base64"
        self._validator = make_validator()

    def validate(self, instance: Any) -> None:
        """Raise ValueError for a text that is not of this type."""
        if not (self._is_json and isinstance(instance, str)):
            return
        text = _decoded(instance) if self._is_base64 else instance.encode()
        if text is not None and type(self._validator(text)) is not int:
            raise ValueError(
                f'{json.dumps(instance)} is not compliant with "application/json" media type'
            )


def _decoded(text: str) -> bytes | None:
    """Return the bytes of base64, or None."""
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True)
    except binascii.Error:
        return None


# The library has no checks of these keywords for drafts after 7.
CONTENT_CHECKS: dict[str, Any] = {
    "contentEncoding": ContentEncoding,
    "contentMediaType": ContentMediaType,
}
