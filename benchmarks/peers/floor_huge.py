"""The floor of one huge file: bare processes that parse parts whose boundaries they are told."""

from __future__ import annotations

import json
import sys

import simdjson

from benchmarks.peers.forks import divide


def count_elements(path: str, parts: list[tuple[int, int]]) -> int:
    """Read and parse the parts of a file, from an element's start to an element's end."""
    parser = simdjson.Parser()
    total = 0
    is_lines = path.endswith("l")
    with open(path, "rb", buffering=0) as stream:
        for start, end in parts:
            stream.seek(start)
            text = stream.read(end - start)
            document = parser.parse(b"[%b]" % (text.replace(b"\n", b",") if is_lines else text))
            assert isinstance(document, simdjson.Array)
            total += len(document)
            del document  # the parser can only be reused when none of its values is in use
    return total


def main(processes: int, path: str, parts: str) -> None:
    """Print the number of elements of a file. `parts` is a file with the offsets of its parts."""
    with open(parts, encoding="utf-8") as stream:
        places = json.load(stream)
    size = -(-len(places) // processes)

    def count(share: int) -> int:
        return count_elements(path, places[share * size : (share + 1) * size])

    print(divide(processes, count))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
