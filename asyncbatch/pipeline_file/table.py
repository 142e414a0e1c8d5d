"""What all tables of a pipeline file have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncbatch.pipeline_file.mistakes import KeyPath

    Given: TypeAlias = Mapping[str, Any]
    """The keys of a table that are there, as yet without defaults. What is not good, also in an
    array, is None."""
    Contradictions: TypeAlias = Iterator[tuple[KeyPath, str]]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A table: its keys are the fields, their types and descriptions what the file may say."""

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:  # noqa: ARG003 - for subclasses
        """Yield what cannot be said together: the key path below the table, and why."""
        yield from ()
