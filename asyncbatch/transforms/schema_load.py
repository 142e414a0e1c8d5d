"""Schema files: read once, with all that they refer to, and checked before any record is."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import msgspec
from msgspec import Struct

from asyncbatch.codec.depth import allow_deep_nesting
from asyncbatch.codec.fault import Fault
from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.place import BOM, locate
from asyncbatch.errors import UsageError
from asyncbatch.transforms.schema_places import (
    Document,
    broken_reference,
    reference_to,
    value_like,
)
from asyncbatch.transforms.schema_words import describe

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_DRAFTS = (
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
_TOO_DEEP = "a schema can be nested 255 levels deep"
_STANDARD = ("http://json-schema.org/", "https://json-schema.org/")


class SchemaSource(Struct, frozen=True):
    """A schema and the documents that it refers to, as JSON texts beside their URIs.

    The first is the schema itself. Plain data, so that it can travel to the workers.
    """

    path: str
    documents: tuple[tuple[str, bytes], ...]
    check_formats: bool

    def validator(self) -> Validator:
        """Compile the schema. It can reach nothing but `documents`."""
        import jsonschema_rs  # noqa: PLC0415 - loaded only where a schema is used

        allow_deep_nesting()
        uri, text = self.documents[0]
        others = [(uri, msgspec.json.decode(text)) for uri, text in self.documents[1:]]
        return jsonschema_rs.validator_for(
            msgspec.json.decode(text),
            registry=jsonschema_rs.Registry(others),
            base_uri=uri,
            validate_formats=self.check_formats,
            offline=True,
        )


def load_schema(path: str, *, check_formats: bool) -> SchemaSource:
    """Read the schema at `path` and, by way of it, all files that it refers to.

    Drafts 4, 6, 7, 2019-09 and 2020-12; the last, unless `$schema` tells. Nothing is fetched.
    Raises UsageError with file, line and column of what is wrong.
    """
    allow_deep_nesting()
    return _Loader(path).load(check_formats=check_formats)


class _Loader:
    """Reads documents as jsonschema_rs asks for them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._documents: dict[str, Document] = {}
        self._refused: UsageError | None = None

    def load(self, *, check_formats: bool) -> SchemaSource:
        import jsonschema_rs  # noqa: PLC0415 - loaded only where a schema is used

        uri = "file://" + quote(os.fsencode(os.path.abspath(self._path)))
        root = self._read(uri, self._path)
        try:
            jsonschema_rs.validator_for(
                root.value,
                retriever=self._retrieve,
                base_uri=uri,
                validate_formats=check_formats,
            )
            texts = tuple((uri, document.text) for uri, document in self._documents.items())
            source = SchemaSource(self._path, texts, check_formats)
            source.validator()
        except jsonschema_rs.ValidationError as error:
            raise self._refused or self._complaint(error) from None
        except ValueError as error:
            reason = str(error).replace("Recursion limit reached", _TOO_DEEP)
            raise self._refused or UsageError(f"{self._path}: {reason}") from None
        return source

    def _read(self, uri: str, path: str) -> Document:
        try:
            with open(path, "rb") as file:
                text = file.read().removeprefix(BOM)
        except OSError as error:
            raise UsageError(f"{path}: the schema cannot be read: {error.strerror}") from None
        verdict = make_judge()(text)
        if isinstance(verdict, Fault):
            line, column, _ = locate(text, verdict.byte)
            raise UsageError(f"{path}:{line}:{column}: the schema is not JSON: {verdict.message}")
        document = Document(uri, path, text, msgspec.json.decode(text))
        self._documents[uri] = document
        self._check_draft(document)
        return document

    def _check_draft(self, document: Document) -> None:
        named = document.value.get("$schema") if isinstance(document.value, dict) else None
        if not isinstance(named, str):
            return  # one that is no text is left to the meta-schema
        plain = named.removesuffix("#")
        if plain.replace("https:", "http:", 1) in {d.replace("https:", "http:") for d in _DRAFTS}:
            return
        known = ", ".join(_DRAFTS)
        raise UsageError(
            f"{document.place(('$schema',))}: unknown $schema {named!r}; known are {known}"
        )

    def _retrieve(self, uri: str) -> Any:  # noqa: ANN401 - a schema
        """Return the document at `uri`. Raises UsageError, kept for `load`, if it is no file."""
        if uri.removesuffix("#").startswith(_STANDARD):
            raise LookupError(uri)  # the library has its own copies, and asks nevertheless
        try:
            return self._read(uri, self._file_at(uri)).value
        except UsageError as error:
            self._refused = self._refused or error
            raise

    def _file_at(self, uri: str) -> str:
        """Return the file that `uri` stands for, which `$id`s may have moved to a website."""
        if uri.startswith("file:///"):
            path = os.fsdecode(unquote_to_bytes(urlsplit(uri).path))
            if not os.path.isfile(path):
                raise UsageError(f"{self._referrer(uri)}: refers to {path}, which is no file")
            return os.path.relpath(path) if not os.path.isabs(self._path) else path
        for document in self._documents.values():
            home = document.identity()
            if home is None or urlsplit(home)[:2] != urlsplit(uri)[:2]:
                continue
            relative = posixpath.relpath(
                urlsplit(uri).path or "/", posixpath.dirname(urlsplit(home).path) or "/"
            )
            path = os.path.join(
                os.path.dirname(document.path), os.fsdecode(unquote_to_bytes(relative))
            )
            if os.path.isfile(path):
                return path
        raise UsageError(
            f"{self._referrer(uri)}: refers to {uri}, which is not a local file; schemas are "
            "never fetched: save it beside this one and refer to the file"
        )

    def _referrer(self, uri: str) -> str:
        return reference_to(uri, list(self._documents.values())) or self._path

    def _complaint(self, error: ValidationError) -> UsageError:
        documents = list(self._documents.values())
        if place := broken_reference(error.message, documents):
            reason = error.message
            if any(standard in reason for standard in _STANDARD):
                reason = "the meta-schema of another draft than the schema's own"
            return UsageError(f"{place}: broken reference: {reason}")
        document = value_like(error.instance, error.instance_path, documents)
        if document is None:
            return UsageError(f"{self._path}: {error.message}")
        place = document.place(error.instance_path)
        return UsageError(f"{place}: is no valid schema: {describe(error)}")
