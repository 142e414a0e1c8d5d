"""Control groups of this process, where a container or a service has its limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMBERSHIPS = Path("/proc/self/cgroup")
CGROUP2 = Path("/sys/fs/cgroup")
CGROUP1 = Path("/sys/fs/cgroup")


def groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the groups that limit this process, with their version; also those above its own."""
    try:
        memberships = MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        number, controllers, path = membership.split(":", 2)
        if number == "0":
            version, base = 2, CGROUP2
        elif controller in controllers.split(","):
            version, base = 1, CGROUP1 / controller
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be the host's: what is not there is passed over.
        for folder in (group, *group.parents):
            if base in (folder, *folder.parents):
                yield version, folder
