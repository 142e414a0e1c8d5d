"""Loading of a JSON Schema and the files it refers to; messages for its errors."""

from __future__ import annotations

import json
import os
import posixpath
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes, urldefrag, urljoin, urlsplit

import msgspec
from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.positions import (
    BOM,
    find_values,
    format_pointer,
    locate_byte,
    parse_pointer,
)
from asyncbatch.formats.validator import make_validator
from asyncbatch.transforms.schema_drafts import (
    CONTENT_CHECKS,
    DATA_KEYWORDS,
    DRAFTS,
    LATEST_DRAFT,
    NAME_KEYWORDS,
    draft_of,
    known_draft,
    with_draft,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jsonschema_rs import ValidationError, Validator

    from asyncbatch.core.records import Json

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_MISSING_TARGET = re.compile(r"(?:Pointer|Anchor) '(.*)' does not exist", re.DOTALL)
_MISSING_RESOURCE = re.compile(r"Resource '(.*?)' is not present", re.DOTALL)
_BAD_REFERENCE = re.compile(r"Invalid URI reference '(.*?)':", re.DOTALL)


class SchemaDocument(Struct, frozen=True):
    """A schema file: its URI, path and content."""

    uri: str
    path: str
    text: bytes
    value: Any
    draft: str  # the URI of its `$schema`, or else the draft of the document that refers to it

    def identity(self) -> str | None:
        """Return the absolute URI in the document's `$id`, or None."""
        if not isinstance(self.value, dict):
            return None
        named = self.value.get("$id", self.value.get("id"))
        return _joined(self.uri, named) if isinstance(named, str) else None

    def pointer_text(self, tokens: Sequence[str | int]) -> str:
        """Return `file:line:column: pointer` of the value at `tokens`."""
        byte = find_values(self.text, [tokens])[0] or 0
        line, column, _ = locate_byte(self.text, byte)
        pointer = format_pointer(tokens)
        return f"{self.path}:{line}:{column}{': ' if pointer else ''}{pointer}"

    def references(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Yield each reference: its tokens, its text and its resolved URI."""
        todo: list[tuple[tuple[str | int, ...], Any, str]] = [((), self.value, self.uri)]
        by_name = {(word,) for word in NAME_KEYWORDS}
        while todo:
            tokens, value, base = todo.pop()
            if isinstance(value, list):
                todo += [((*tokens, index), item, base) for index, item in enumerate(value)]
            if not isinstance(value, dict):
                continue
            named = value.get("$id", value.get("id"))
            base = _joined(base, named) if isinstance(named, str) else base
            holds_names = tokens[-1:] in by_name
            for key, item in value.items():
                if key in _REFERENCES and isinstance(item, str):
                    yield (*tokens, key), item, _joined(base, item)
                elif holds_names or key not in DATA_KEYWORDS:
                    todo.append(((*tokens, key), item, base))

    def is_missing(self, fragment: str) -> bool:
        """Whether the document has no value at `fragment`, a JSON Pointer."""
        try:
            return find_values(self.text, [parse_pointer(fragment)]) == [None]
        except ValueError:  # an anchor: the library has reported it as missing
            return True


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # not a URI reference: the library reports it
        return reference


def reference_to(uri: str, documents: list[SchemaDocument]) -> str | None:
    """Return file, line and column of the first reference to the document at `uri`."""
    for document in documents:
        for tokens, _, target in document.references():
            if urldefrag(target).url == uri:
                return document.pointer_text(tokens)
    return None


def broken_reference(message: str, documents: list[SchemaDocument]) -> str | None:
    """Return file, line and column of the reference that `message` is about."""
    if found := _MISSING_RESOURCE.search(message):
        return reference_to(found[1], documents)
    if found := _BAD_REFERENCE.search(message):
        bad = found[1]
        return _first_reference(lambda written, _: written == bad, documents)
    if found := _MISSING_TARGET.search(message):
        fragment = found[1]
        return _first_reference(
            lambda _, target: _is_missing(target, fragment, documents), documents
        )
    return None


def _first_reference(
    matches: Callable[[str, str], bool], documents: list[SchemaDocument]
) -> str | None:
    """Return file, line and column of the first reference that `matches(text, uri)`."""
    for document in documents:
        for tokens, written, target in document.references():
            if matches(written, target):
                return document.pointer_text(tokens)
    return None


def _is_missing(target: str, named: str, documents: list[SchemaDocument]) -> bool:
    """Whether `target` has the fragment `named`, and no document has a value there."""
    uri, fragment = urldefrag(target)
    if unquote(fragment) != unquote(named):
        return False
    targets = [document for document in documents if uri in (document.uri, document.identity())]
    return all(document.is_missing(unquote(fragment)) for document in targets)


def value_like(
    value: Json,
    tokens: Sequence[str | int],
    documents: list[SchemaDocument],
) -> SchemaDocument | None:
    """Return the first document whose value at `tokens` equals `value`."""
    for document in documents:
        part = document.value
        try:
            for token in tokens:
                part = part[token]
        except (KeyError, IndexError, TypeError):
            continue
        if part == value:
            return document
    return None


_LONGEST = 200  # characters of a message
_LISTED_VALUES = 3  # alternatives, or violations of the nearest alternative, that a message lists


def describe(error: ValidationError) -> str:
    """Return the library's message for `error`, with large values shortened.

    For alternatives (anyOf, oneOf): the violations of the nearest one or, if none is near, a short
    list of the requirements of all.
    """
    branches = getattr(error.kind, "context", None)
    if error.kind.name not in ("anyOf", "oneOf") or not branches or not all(branches):
        return shortened(_library_message(error))
    here = error.instance_path
    ranked = sorted(branches, key=lambda branch: _distance(branch, here))
    if _is_far(ranked[0], here):
        wanted = list(dict.fromkeys(shortened(_library_message(branch[0])) for branch in ranked))
        more = "; …" if len(wanted) > _LISTED_VALUES else ""
        return (
            f"fits none of {len(branches)} alternatives: {'; '.join(wanted[:_LISTED_VALUES])}{more}"
        )
    lacks = "; ".join(_located(misfit, here) for misfit in ranked[0][:_LISTED_VALUES])
    more = "; …" if len(ranked[0]) > _LISTED_VALUES else ""
    return f"fits none of {len(branches)} alternatives; the nearest: {lacks}{more}"


def shortened(text: str) -> str:
    """Shorten a long `text` in the middle, because the violated rule is at its end."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _distance(branch: list[ValidationError], here: list[str | int]) -> tuple[bool, bool, int]:
    """Return a sort key: a wrong type is furthest, then a wrong constant."""
    fixed = any(misfit.kind.name in ("const", "enum") for misfit in branch)
    return _is_far(branch, here), fixed, len(branch)


def _is_far(branch: list[ValidationError], here: list[str | int]) -> bool:
    return any(
        misfit.instance_path == here and misfit.kind.name in ("type", "const", "enum")
        for misfit in branch
    )


def _located(misfit: ValidationError, here: list[str | int]) -> str:
    below = misfit.instance_path[len(here) :]
    place = f"at …{format_pointer(below)}: " if below else ""
    return f"{place}{shortened(_library_message(misfit))}"


def _library_message(error: ValidationError) -> str:
    if error.kind.name == "falseSchema":
        return "is not allowed here"
    if error.message == "Unexpected type":  # the value of a keyword in a schema file
        return f"{json.dumps(error.instance)} is not a valid value for {error.instance_path[-1]!r}"
    return error.message


_MAX_HOPS = 10  # references that are followed from the root, which may be a circle
_TOO_DEEP = "a schema may be nested at most 255 levels deep"
_STANDARD = ("http://json-schema.org/", "https://json-schema.org/")


class SchemaSource(Struct, frozen=True):
    """A schema and the documents that it refers to, as data for workers."""

    path: str
    # URI and JSON text of each document, which names its draft; the first is the schema
    documents: tuple[tuple[str, bytes], ...]
    check_formats: bool
    check_content: bool = False
    files: tuple[str, ...] = ()  # the file of each document

    def root_types(self) -> set[str] | None:
        """Return the types that the schema allows at its root, None if it does not name them."""
        root = part = msgspec.json.decode(self.documents[0][1])
        for _ in range(_MAX_HOPS):
            if not isinstance(part, dict):
                return None
            named = part.get("type")
            if isinstance(named, str | list):
                return {named} if isinstance(named, str) else set(named)
            reference = part.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                return None
            part = root
            for token in parse_pointer(unquote(reference[1:])):
                part = part.get(token) if isinstance(part, dict) else None
        return None

    def validator(self) -> Validator:
        """Compile the schema. It can refer only to `documents`."""
        import jsonschema_rs

        allow_deep_nesting()
        uri, text = self.documents[0]
        others = [(uri, msgspec.json.decode(text)) for uri, text in self.documents[1:]]
        return jsonschema_rs.validator_for(
            msgspec.json.decode(text),
            registry=jsonschema_rs.Registry(others),
            base_uri=uri,
            validate_formats=self.check_formats,
            keywords=CONTENT_CHECKS if self.check_content else None,
            offline=True,
        )


def load_schema(
    path: str,
    *,
    check_formats: bool,
    check_content: bool = False,
    copies: Sequence[tuple[str, str]] = (),
    text: bytes | None = None,
) -> SchemaSource:
    """Read the schema at `path` and all files that it refers to.

    Supports drafts 4, 6, 7, 2019-09 and 2020-12, the default without `$schema`. Makes no network
    requests: `copies` are URIs and the files or folders that hold what is there. Raises UsageError
    with file, line and column of each error. `text` is taken for the content of the file.
    """
    allow_deep_nesting()
    loader = _SchemaLoader(path, copies, text)
    return loader.load(check_formats=check_formats, check_content=check_content)


class _SchemaLoader:
    """A loader of one schema: reads each document that jsonschema_rs asks for."""

    def __init__(
        self, path: str, copies: Sequence[tuple[str, str]], text: bytes | None = None
    ) -> None:
        self._path, self._copies, self._text_of_root = path, copies, text
        self._documents: dict[str, SchemaDocument] = {}
        self._refused: list[str] = []  # messages about documents that cannot be read

    def load(self, *, check_formats: bool, check_content: bool) -> SchemaSource:
        import jsonschema_rs

        uri = "file://" + quote(os.fsencode(os.path.abspath(self._path)))
        self._check_content = check_content
        root = self._read(uri, self._path, LATEST_DRAFT)
        try:
            jsonschema_rs.validator_for(
                self._prepared(root),
                retriever=self._retrieve,
                base_uri=uri,
                validate_formats=check_formats,
                keywords=CONTENT_CHECKS if check_content else None,
            )
            self._check_refused()
            source = SchemaSource(
                self._path,
                tuple((uri, self._text(document)) for uri, document in self._documents.items()),
                check_formats,
                check_content,
                tuple(document.path for document in self._documents.values()),
            )
            source.validator()
        except jsonschema_rs.ValidationError as error:
            self._check_refused()
            raise self._load_error(error) from None
        except ValueError as error:
            self._check_refused()
            reason = str(error).replace("Recursion limit reached", _TOO_DEEP)
            raise UsageError(f"{self._path}: {reason}") from None
        return source

    def _check_refused(self) -> None:
        """Raise UsageError for all documents that cannot be read."""
        if self._refused:
            raise UsageError("\n".join(self._refused))

    def _prepared(self, document: SchemaDocument) -> Json:
        return with_draft(document.value, document.draft, check_content=self._check_content)

    def _text(self, document: SchemaDocument) -> bytes:
        """Return the text of a document: as it is, if the library takes it like this."""
        prepared = self._prepared(document)
        return document.text if prepared == document.value else msgspec.json.encode(prepared)

    def _read(self, uri: str, path: str, draft: str) -> SchemaDocument:
        """Read a document, which is of `draft` unless it says otherwise."""
        text = self._text_of_root if not self._documents else None
        if text is None:
            try:
                with open(path, "rb") as file:
                    text = file.read().removeprefix(BOM)
            except OSError as error:
                raise UsageError(f"{path}: the schema cannot be read: {error.strerror}") from None
        result = make_validator()(text)
        if isinstance(result, Fault):
            line, column, _ = locate_byte(text, result.byte)
            raise UsageError(f"{path}:{line}:{column}: the schema is not JSON: {result.message}")
        value = msgspec.json.decode(text)
        document = SchemaDocument(uri, path, text, value, draft_of(value, draft))
        self._documents[uri] = document
        self._check_draft(document)
        return document

    def _check_draft(self, document: SchemaDocument) -> None:
        named = document.value.get("$schema") if isinstance(document.value, dict) else None
        if not isinstance(named, str):
            return  # the meta-schema rejects a value that is not a text
        if known_draft(named) is not None:
            return
        known = ", ".join(DRAFTS)
        raise UsageError(
            f"{document.pointer_text(('$schema',))}: unknown $schema {named!r}; known are {known}"
        )

    def _retrieve(self, uri: str) -> Any:
        """Return the document at `uri`; if there is none, note the reason for `load`."""
        if uri.removesuffix("#").startswith(_STANDARD):
            raise LookupError(uri)  # the library asks, but then uses its own copies
        try:
            return self._prepared(self._read(uri, self._file_at(uri), self._draft_for(uri)))
        except UsageError as error:
            self._refused.append(str(error))
            return {}  # the library goes on, and asks for the other documents

    def _draft_for(self, uri: str) -> str:
        """Return the draft of the first document that refers to `uri`."""
        for document in self._documents.values():
            if any(urldefrag(target).url == uri for *_, target in document.references()):
                return document.draft
        return next(iter(self._documents.values())).draft

    def _copy_of(self, uri: str) -> str | None:
        """Return the file that `copies` name for `uri`, or None."""
        for start, path in self._copies:
            if uri == start.removesuffix("#") and os.path.isfile(path):
                return path
            below = uri.removeprefix(start.rstrip("/") + "/")
            if below != uri and os.path.isdir(path):
                found = os.path.join(path, os.fsdecode(unquote_to_bytes(urlsplit(below).path)))
                if os.path.isfile(found):
                    return found
        return None

    def _file_at(self, uri: str) -> str:
        """Return the file for `uri`. An `$id` may have changed its base to a web address."""
        if path := self._copy_of(uri):
            return path
        if uri.startswith("file:///"):
            path = os.fsdecode(unquote_to_bytes(urlsplit(uri).path))
            if not os.path.isfile(path):
                raise UsageError(f"{self._referrer(uri)}: refers to {path}, which is not a file")
            return os.path.relpath(path) if not os.path.isabs(self._path) else path
        for document in self._documents.values():
            base = document.identity()
            if base is None or urlsplit(base)[:2] != urlsplit(uri)[:2]:
                continue
            relative = posixpath.relpath(
                urlsplit(uri).path or "/", posixpath.dirname(urlsplit(base).path) or "/"
            )
            path = os.path.join(
                os.path.dirname(document.path), os.fsdecode(unquote_to_bytes(relative))
            )
            if os.path.isfile(path):
                return path
        raise UsageError(
            f"{self._referrer(uri)}: refers to {uri}, which is not a local file; schemas are "
            "never fetched: save it beside this schema and refer to that file, or name its copy "
            "(--ref URI=FILE)"
        )

    def _referrer(self, uri: str) -> str:
        return reference_to(uri, list(self._documents.values())) or self._path

    def _load_error(self, error: ValidationError) -> UsageError:
        documents = list(self._documents.values())
        if place := broken_reference(error.message, documents):
            reason = error.message
            if any(standard in reason for standard in _STANDARD):
                reason = "the meta-schema belongs to another draft than the schema"
            return UsageError(f"{place}: broken reference: {reason}")
        document = value_like(error.instance, error.instance_path, documents)
        if document is None:
            return UsageError(f"{self._path}: {error.message}")
        place = document.pointer_text(error.instance_path)
        return UsageError(f"{place}: is not a valid schema: {describe(error)}")
