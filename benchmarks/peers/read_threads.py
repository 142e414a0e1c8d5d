"""32 threads that only read all files of a folder."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

THREADS = 32


def read(path: str) -> int:
    """Read one whole file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return len(os.read(descriptor, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def main(folder: str) -> None:
    """Print the number of bytes in all files of a folder."""
    paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    with ThreadPoolExecutor(THREADS) as pool:
        print(sum(pool.map(read, paths)))


if __name__ == "__main__":
    main(sys.argv[1])
