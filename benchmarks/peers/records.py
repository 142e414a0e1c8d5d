"""The records of a folder as tuples that are ready to be loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.peers.clean import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def pages_of(folder: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each file: of an array, or of JSON Lines."""
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as stream:
                if name.endswith(".jsonl"):
                    yield [orjson.loads(line) for line in stream]
                else:
                    yield orjson.loads(stream.read())


def rows_of(folder: str, columns: Sequence[str], *, cleaned: bool = False) -> list[tuple[Any, ...]]:
    """Return the values of the columns of each record, cleaned as people or as they are."""
    rows: list[tuple[Any, ...]] = []
    for page in pages_of(folder):
        records = filter(None, map(clean, page)) if cleaned else iter(page)
        rows += [tuple(map(record.get, columns)) for record in records]
    return rows
