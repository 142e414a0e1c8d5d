"""Bare processes that only read, parse with orjson, and validate."""

from __future__ import annotations

import multiprocessing
import os
import sys
from itertools import islice

import jsonschema_rs
import orjson

SLICE_BYTES = 8_000_000


def count_invalid(schema: str, paths: list[str], share: int, shares: int) -> int:
    """Validate each element of the arrays in files, or a share of the lines of each file."""
    with open(schema, "rb") as stream:
        is_valid = jsonschema_rs.validator_for(orjson.loads(stream.read())).is_valid
    invalid = 0
    for path in paths:
        with open(path, "rb") as stream:
            if not path.endswith(".jsonl"):
                invalid += sum(not is_valid(record) for record in orjson.loads(stream.read()))
                continue
            while lines := stream.readlines(SLICE_BYTES):
                records = map(orjson.loads, islice(lines, share, None, shares))
                invalid += sum(not is_valid(record) for record in records)
    return invalid


def main(processes: int, schema: str, source: str) -> None:
    """Print the number of invalid records in all files of a folder, or in one of JSON Lines."""
    numbers = range(processes)
    if source.endswith(".jsonl"):
        shares = [(schema, [source], share, processes) for share in numbers]
    else:
        paths = [os.path.join(at, name) for at, _, names in os.walk(source) for name in names]
        shares = [(schema, paths[share::processes], 0, 1) for share in numbers]
    with multiprocessing.Pool(processes) as pool:
        print(sum(pool.starmap(count_invalid, shares)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
