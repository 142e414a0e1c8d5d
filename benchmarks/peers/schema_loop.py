"""Bare processes that only read, parse with orjson, and validate."""

from __future__ import annotations

import multiprocessing
import os
import sys

import jsonschema_rs
import orjson


def count_invalid(schema: str, paths: list[str]) -> int:
    """Read files one after another, and validate each element of their arrays."""
    with open(schema, "rb") as stream:
        is_valid = jsonschema_rs.validator_for(orjson.loads(stream.read())).is_valid
    invalid = 0
    for path in paths:
        with open(path, "rb") as stream:
            records = orjson.loads(stream.read())
        invalid += sum(not is_valid(record) for record in records)
    return invalid


def main(processes: int, schema: str, folder: str) -> None:
    """Print the number of invalid records in all files of a folder."""
    paths = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    shares = [(schema, paths[share::processes]) for share in range(processes)]
    with multiprocessing.Pool(processes) as pool:
        print(sum(pool.starmap(count_invalid, shares)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
