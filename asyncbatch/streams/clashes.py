"""Files that a stream would write over each other, or read what it writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def check_places(sources: Sequence[str], written: Mapping[str, str | None]) -> None:
    """Raise UsageError if files that options name are one, or are read by the stream itself.

    Pipes and devices may be.
    """
    seen: dict[str, str] = {}
    for option, path in written.items():
        if path is None or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        place = os.path.realpath(path)
        if place in seen:
            raise UsageError(f"{option} {path} is what {seen[place]} writes")
        seen[place] = option
        for source in filter(os.path.exists, sources):
            read = os.path.realpath(source)
            if place == read or (os.path.isdir(read) and place.startswith(os.path.join(read, ""))):
                raise UsageError(f"{option} {path} would be read again: it is in {source}")
