"""ijson: a stream of values, in little memory."""

from __future__ import annotations

import sys

import ijson.backends.yajl2_c as ijson


def main(path: str) -> None:
    """Print the number of elements of the array in a file."""
    with open(path, "rb") as stream:
        print(sum(1 for _ in ijson.items(stream, "item", use_float=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
