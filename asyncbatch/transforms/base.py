"""The `Transform` protocol, the error that rejects a record, and names that records lack."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from asyncbatch.formats.decoder import decode
from asyncbatch.formats.positions import format_pointer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from asyncbatch.core.records import FailureKind, Json, Violation


class Context(Struct, frozen=True):
    """The origin of a record: its file, its number and its line there (both from 1)."""

    file: str
    record: int
    line: int | None = None


class RecordPosition(Protocol):
    """The position of the current record in its input."""

    @property
    def file(self) -> str:
        """The file of the record, as reports show it."""
        ...

    @property
    def record(self) -> int:
        """The number of the record in its file, from 1."""
        ...

    @property
    def line(self) -> int | None:
        """The line in which the record begins, from 1, if it is known."""
        ...

    def context(self) -> Context:
        """Return the file, record number and line of the record."""
        ...


_MAX_DECODED_BYTES = 4 * 1024 * 1024  # of a document, only for a hint


class MissingName(Struct, frozen=True):
    """A name of the user's settings that a record lacks. It is misspelt if all records lack it."""

    subject: str  # for example `no record has a value for the key field 'idd'`
    name: str
    value: Json  # the record, or the text of a document without an array at the pointer `name`

    def note(self) -> str:
        """Return the note for the user, with the nearest name that the value has."""
        value, is_text = self.value, isinstance(self.value, bytes)
        if is_text:
            value = decode(value) if len(value) <= _MAX_DECODED_BYTES else None
        return self.subject + nearest_name(self.name, names_in(value, self.name, arrays=is_text))


class RecordError(Exception):
    """The rejection of a record, with the reason and, for schemas, each violation.

    `missing` is set if the record lacks a name that the user chose.
    """

    message: str
    pointer: str | None
    violations: tuple[Violation, ...]
    detail: str | None
    missing: MissingName | None

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        pointer: str | None = None,
        violations: tuple[Violation, ...] = (),
        detail: str | None = None,
        missing: MissingName | None = None,
    ) -> None:
        super().__init__(kind, message)
        self.kind, self.message, self.pointer = kind, message, pointer
        self.violations, self.detail, self.missing = violations, detail, missing


def kind_of(value: object) -> str:
    """Return the type of a JSON value for a message, for example `an array`."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


class Transform(Protocol):
    """A function from one value to any number of values, called for each record."""

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:
        """Return the outputs for `value`; without outputs the record is dropped.

        Raises RecordError, possibly only when the outputs are iterated.
        """
        ...


_MAX_NAMES = 1000  # names of a record that are compared with a missing one
# Each of a million files may be rejected for the same name, and a search takes about 0.1 ms.
_CACHED_SEARCHES = 64
_MAX_LEVELS = 4  # levels of a record with such names


def names_in(value: Json, like: str, *, arrays: bool = False) -> list[str]:
    """Return the first names of fields in `value`, written as `like` is: a.b, or /a/b.

    With `arrays` only those of arrays.
    """
    is_pointer = like.startswith("/")
    return [
        format_pointer(path) if is_pointer else ".".join(path)
        for path in islice(_paths_in(value, arrays=arrays), _MAX_NAMES)
    ]


def _paths_in(
    value: Json, above: tuple[str, ...] = (), *, arrays: bool = False
) -> Iterator[tuple[str, ...]]:
    if type(value) is not dict or len(above) == _MAX_LEVELS:
        return
    for name, item in value.items():
        path = (*above, name)
        if not arrays or type(item) is list:
            yield path
        yield from _paths_in(item, path, arrays=arrays)


def nearest_name(name: str, names: Collection[str]) -> str:
    """Return the end of a message that names the nearest of `names`, or nothing."""
    near = find_nearest(name, names)
    return "" if near is None else f"; the nearest one is {near!r}"


def find_nearest(name: str, names: Collection[str]) -> str | None:
    """Return the one of `names` that is most like a name, or None."""
    return _find_nearest(name, tuple(names))


@lru_cache(_CACHED_SEARCHES)
def _find_nearest(name: str, names: tuple[str, ...]) -> str | None:
    import difflib  # here: it is slow to import, and most runs need no nearest name

    first = re.split(r"[./]", name.lstrip("/"))[0].strip()
    close = difflib.get_close_matches(name.strip(), names, n=1)
    return close[0] if close else first if first in names else None
