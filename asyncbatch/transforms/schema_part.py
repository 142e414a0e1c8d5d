"""Checks of values against a part of a JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from asyncbatch.formats.positions import format_pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jsonschema_rs import Registry

    from asyncbatch.core.records import Json


class PartValidators:
    """Makes checks by parts of documents, which are given with their URIs."""

    def __init__(self, documents: Sequence[tuple[str, Json]]) -> None:
        self._documents = documents
        self._registry: Registry | None = None

    def make(
        self, uri: str, tokens: Sequence[str | int], draft: str, *, check_formats: bool
    ) -> Callable[[Json], bool] | None:
        """Return a check of values by the part at `tokens` of a document, None if there is none.

        There is none for a part that a pointer from the document does not reach.
        """
        import jsonschema_rs

        part: dict[str, Any] = {
            "$schema": draft,
            "$ref": f"{uri}#{quote(format_pointer(tokens))}",
        }
        try:
            if self._registry is None:
                self._registry = jsonschema_rs.Registry(list(self._documents))
            return jsonschema_rs.validator_for(
                part, registry=self._registry, validate_formats=check_formats, offline=True
            ).is_valid
        except ValueError:
            return None
