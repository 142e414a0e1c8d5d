"""Where in which schema file a reference or a faulty part stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin

from msgspec import Struct

from asyncbatch.codec.place import locate
from asyncbatch.codec.pointer import find, format_pointer, parse_pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA = ("enum", "const", "examples", "default")
"""Keywords whose values are no schemas: what looks like a reference in them is none."""
_BY_NAME = tuple(
    (word,)
    for word in (
        "properties",
        "patternProperties",
        "$defs",
        "definitions",
        "dependentSchemas",
        "dependencies",
    )
)
"""Keywords whose values hold schemas by name: no key in them is a keyword."""
_MISSING_TARGET = re.compile(r"(?:Pointer|Anchor) '(.*)' does not exist", re.DOTALL)
_MISSING_RESOURCE = re.compile(r"Resource '(.*?)' is not present", re.DOTALL)
_BAD_REFERENCE = re.compile(r"Invalid URI reference '(.*?)':", re.DOTALL)


class Document(Struct, frozen=True):
    """A schema file: its URI, path and content."""

    uri: str
    path: str
    text: bytes
    value: Any

    def identity(self) -> str | None:
        """Return the absolute URI that the document gives itself, if it does."""
        if not isinstance(self.value, dict):
            return None
        named = self.value.get("$id", self.value.get("id"))
        return _joined(self.uri, named) if isinstance(named, str) else None

    def place(self, tokens: Sequence[str | int]) -> str:
        """Return `file:line:column: pointer` of the value at `tokens`."""
        byte = find(self.text, [tokens])[0] or 0
        line, column, _ = locate(self.text, byte)
        pointer = format_pointer(tokens)
        return f"{self.path}:{line}:{column}{': ' if pointer else ''}{pointer}"

    def references(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Yield each reference: where it stands, as it is written, and the URI it comes to."""
        todo: list[tuple[tuple[str | int, ...], Any, str]] = [((), self.value, self.uri)]
        while todo:
            tokens, value, base = todo.pop()
            if isinstance(value, list):
                todo += [((*tokens, index), item, base) for index, item in enumerate(value)]
            if not isinstance(value, dict):
                continue
            named = value.get("$id", value.get("id"))
            base = _joined(base, named) if isinstance(named, str) else base
            holds_names = tokens[-1:] in _BY_NAME
            for key, item in value.items():
                if key in _REFERENCES and isinstance(item, str):
                    yield (*tokens, key), item, _joined(base, item)
                elif holds_names or key not in _DATA:
                    todo.append(((*tokens, key), item, base))

    def is_missing(self, fragment: str) -> bool:
        """Tell if the document has no value at `fragment`, a JSON Pointer."""
        try:
            return find(self.text, [parse_pointer(fragment)]) == [None]
        except ValueError:  # an anchor, which is missing if the library says so
            return True


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # it is no URI reference, as the library will say
        return reference


def reference_to(uri: str, documents: list[Document]) -> str | None:
    """Return the place of the first reference into the document at `uri`."""
    for document in documents:
        for tokens, _, target in document.references():
            if urldefrag(target).url == uri:
                return document.place(tokens)
    return None


def broken_reference(message: str, documents: list[Document]) -> str | None:
    """Return the place of the reference that the library's `message` complains of."""
    if found := _MISSING_RESOURCE.search(message):
        return reference_to(found[1], documents)
    if found := _BAD_REFERENCE.search(message):
        bad = found[1]
        return _first(lambda written, _: written == bad, documents)
    if found := _MISSING_TARGET.search(message):
        fragment = found[1]
        return _first(lambda _, target: _is_missing(target, fragment, documents), documents)
    return None


def _first(is_it: Callable[[str, str], bool], documents: list[Document]) -> str | None:
    """Return the place of the first reference that `is_it`, by what is written and the URI."""
    for document in documents:
        for tokens, written, target in document.references():
            if is_it(written, target):
                return document.place(tokens)
    return None


def _is_missing(target: str, named: str, documents: list[Document]) -> bool:
    """Tell if `target` is a reference to what the library has `named` as missing."""
    uri, fragment = urldefrag(target)
    if unquote(fragment) != unquote(named):
        return False
    homes = [document for document in documents if uri in (document.uri, document.identity())]
    return all(home.is_missing(unquote(fragment)) for home in homes)


def value_like(
    value: Any,  # noqa: ANN401 - any part of a schema
    tokens: Sequence[str | int],
    documents: list[Document],
) -> Document | None:
    """Return the first document that has `value` at `tokens`."""
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
