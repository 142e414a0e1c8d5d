"""The floor of profiles: bare processes that decode files, and may visit each value."""

from __future__ import annotations

import gc
import sys
from typing import Any

import msgspec

from benchmarks.peers.forks import divide, files_of


def count_records(paths: list[str]) -> int:
    """Decode files one after another; return the number of their records."""
    decode, total = msgspec.json.Decoder().decode, 0
    for path in paths:
        with open(path, "rb") as stream:
            document = decode(stream.read())
        total += len(document) if isinstance(document, list) else 1
    return total


def count_values(paths: list[str]) -> int:
    """Decode files one after another, and visit each value; return the number of values."""
    decode, total = msgspec.json.Decoder().decode, 0
    for path in paths:
        with open(path, "rb") as stream:
            total += visit(decode(stream.read()))
    return total


def visit(value: Any) -> int:
    """Return the number of values in a value, with itself."""
    kind = type(value)
    if kind is dict:
        return 1 + sum(map(visit, value.values()))
    if kind is list:
        return 1 + sum(map(visit, value))
    return 1


def main(processes: int, folder: str, *options: str) -> None:
    """Print the number of records or values in all files of a folder."""
    gc.disable()  # JSON has no cycles
    count = count_values if "--visit" in options else count_records
    paths = files_of(folder)
    print(divide(processes, lambda share: count(paths[share::processes])))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
