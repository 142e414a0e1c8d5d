"""Work that is divided among forked processes, for the floors."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def divide(processes: int, work: Callable[[int], int]) -> int:
    """Return the sum of `work(share)` for each share, computed in a process of its own.

    Exits with 1 if a process fails.
    """
    reader, writer = os.pipe()
    for share in range(processes):
        if os.fork() == 0:
            status = 1
            try:
                os.write(writer, b"%d\n" % work(share))
                status = 0
            finally:
                os._exit(status)
    os.close(writer)
    statuses = [os.wait()[1] for _ in range(processes)]
    if any(statuses):
        sys.exit(1)
    with os.fdopen(reader) as answers:
        return sum(map(int, answers))


def files_of(folder: str) -> list[str]:
    """Return the paths of all files in a folder."""
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
