"""The floor of files: bare processes that only list, read and parse with simdjson."""

from __future__ import annotations

import os
import sys

import simdjson

from benchmarks.peers.forks import divide, files_of


def count_records(paths: list[str]) -> int:
    """Read and parse files one after another."""
    parser = simdjson.Parser()
    total = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        content = os.read(descriptor, os.fstat(descriptor).st_size)
        os.close(descriptor)
        document = parser.parse(content)
        total += len(document) if isinstance(document, simdjson.Array) else 1
        del document  # the parser can only be reused when none of its values is in use
    return total


def main(processes: int, folder: str) -> None:
    """Print the number of records in all files of a folder."""
    paths = files_of(folder)
    print(divide(processes, lambda share: count_records(paths[share::processes])))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
