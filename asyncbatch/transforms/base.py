"""The `Transform` protocol: one step on the way of a record. One kind a module."""

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
    """The record that is being worked on."""

    def context(self) -> Context:
        """Say where it comes from."""
        ...


class RecordError(Exception):
    """The record is rejected: why, and (schemas) each place that does not fit."""

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
    """Return the noun for a JSON value, for messages: `an array`."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


class Transform(Protocol):
    """Makes any number of values of one; called for one record at a time."""

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:
        """Return the outputs for `value`; none drops it. Raises RecordError, also midway."""
        ...
