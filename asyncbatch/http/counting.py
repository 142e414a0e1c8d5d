"""What is looked up in a page's body: how many records it holds, and single values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.codec.decode import decode, decode_array
from asyncbatch.codec.pointer import format_pointer, text_at

if TYPE_CHECKING:
    from collections.abc import Sequence


class NoRecordsError(Exception):
    """There is no array where the records should be; the message says what there is."""


def count_records(body: bytes, pointer: Sequence[str]) -> int:
    """Return the length of the array at `pointer` of a valid JSON text; null has none.

    Raises NoRecordsError.
    """
    at = text_at(body, pointer)
    first = b"" if at is None else bytes(memoryview(at)[:1])
    if at is not None and first == b"[":
        return len(decode_array(at))
    if first == b"n":
        return 0
    where = f"at {format_pointer(pointer)}" if pointer else "at the top of the answer"
    there = "nothing" if at is None else "an object" if first == b"{" else "a single value"
    raise NoRecordsError(f"no array of records {where} but {there}; say with `records` where")


def count_lines(body: bytes) -> int:
    """Return how many lines hold something."""
    return sum(1 for line in body.split(b"\n") if line.strip())


def value_at(body: bytes, pointer: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value at `pointer` of a valid JSON text; None if there is none."""
    at = text_at(body, pointer)
    return None if at is None else decode(at)
