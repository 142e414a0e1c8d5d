"""The `Transform` protocol, and the error that rejects a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.records import FailureKind, Json, Violation


class Context(Struct, frozen=True):
    """The origin of a record: its file, its number and its line there (both from 1)."""

    file: str
    record: int
    line: int | None = None


class RecordPosition(Protocol):
    """The position of the current record in its input."""

    def context(self) -> Context:
        """Return the file, record number and line of the record."""
        ...


class RecordError(Exception):
    """The rejection of a record, with the reason and, for schemas, each violation."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        pointer: str | None = None,
        violations: tuple[Violation, ...] = (),
        detail: str | None = None,
    ) -> None:
        super().__init__(kind, message)
        self.kind, self.message, self.pointer = kind, message, pointer
        self.violations, self.detail = violations, detail


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
