"""The check that no file is read by two sources of a stream."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError
from asyncbatch.sources.aliases import file_id
from asyncbatch.sources.selection import Filter

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from asyncbatch.sources.selection import Selection


def check_distinct(sources: Iterable[tuple[str, Selection | None]]) -> None:
    """Raise UsageError if two sources read the same file, whatever they call it.

    A source is '-', a file, or a folder with the selection of its files. Links in folders are not
    looked up.
    """
    named = list(sources)
    seen: dict[Hashable, str] = {}
    for path, _ in named:
        file = _identity(path)
        if (other := seen.get(file)) is not None:
            if other == path:
                raise UsageError(f"{path} is given twice: name each source once")
            raise UsageError(f"{other} and {path} are the same file: name each source once")
        seen[file] = path
    for folder, selection in named:
        if selection is None or not os.path.isdir(folder):
            continue
        wanted = Filter(selection)
        for path, _ in named:
            if path not in (folder, STDIN) and is_read_with(folder, wanted, path):
                raise UsageError(f"{path} is in {folder}, a source too: name each source once")


def _identity(path: str) -> Hashable:
    """Return the identity of a source that exists, else its real path."""
    if path == STDIN:
        return file_id(0) or path
    return file_id(path) or os.path.realpath(path)


def is_read_with(folder: str, wanted: Filter, path: str) -> bool:
    """Whether a folder is read together with the file or folder at `path`, which is inside."""
    above, place = os.path.join(os.path.realpath(folder), ""), os.path.realpath(path)
    if not place.startswith(above):
        return False
    *folders, name = place[len(above) :].split(os.sep)
    below = ""
    for part in folders:
        if not wanted.takes_folder(part, below):
            return False
        below += f"{part}/"
    takes = wanted.takes_folder if os.path.isdir(place) else wanted.takes_file
    return takes(name, below)
