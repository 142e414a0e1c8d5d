"""The floor of JSON Lines: bare processes that decode files and encode their records."""

from __future__ import annotations

import os
import shutil
import sys

import orjson

from benchmarks.peers.forks import divide, files_of


def write_records(paths: list[str], target: str) -> int:
    """Write the records of files into one file of JSON Lines; return their number."""
    total = 0
    with open(target, "wb") as stream:
        for path in paths:
            with open(path, "rb") as source:
                document = orjson.loads(source.read())
            records = document if isinstance(document, list) else [document]
            stream.writelines(
                orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in records
            )
            total += len(records)
    return total


def main(processes: int, folder: str, target: str) -> None:
    """Write a part in each process, and join the parts."""
    paths = files_of(folder)
    parts = [f"{target}.{share}" for share in range(processes)]
    divide(processes, lambda share: write_records(paths[share::processes], parts[share]))
    os.rename(parts[0], target)
    with open(target, "ab") as stream:
        for part in parts[1:]:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
            os.remove(part)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
