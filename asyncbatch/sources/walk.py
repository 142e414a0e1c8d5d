"""Folders walked in order, lazily, without a stat for each file."""

from __future__ import annotations

import os
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.sources.selection import Filter


class _Level(NamedTuple):
    """A folder being walked: what is left of it, where it is below the root, which it is."""

    entries: Iterator[os.DirEntry[str]]
    below: str
    identity: tuple[int, int] | None


def walk(root: str, wanted: Filter) -> Iterator[str]:
    """Yield the wanted files below folder `root`, sorted within each folder, depth first.

    Holds the names of one folder and of those above it. The kind of an entry comes with its
    name; only symbolic links need a closer look. A folder that cannot be listed is itself
    yielded: opening it will say why. A link back to a folder above is not followed.
    """
    takes_file = wanted.takes_file
    levels: list[_Level] = []
    to_list: tuple[str, str] | None = (root, "")
    while to_list or levels:
        if to_list:
            path, below = to_list
            to_list = None
            try:
                level = _list(path, below, identify=wanted.follow_symlinks)
            except OSError:
                yield path
                continue
            if level.identity is None or all(one.identity != level.identity for one in levels):
                levels.append(level)
            continue
        entries, below, _ = levels[-1]
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                if takes_file(entry.name, below):
                    yield entry.path
            elif _is_folder(entry, linked=wanted.follow_symlinks):
                if wanted.enters(entry.name, below):
                    to_list = entry.path, f"{below}{entry.name}/"
                    break
            elif entry.is_symlink() and _is_file(entry) and takes_file(entry.name, below):
                yield entry.path
        else:
            levels.pop()


def _list(path: str, below: str, *, identify: bool) -> _Level:
    identity = None
    if identify:
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
    with os.scandir(path) as entries:
        found = sorted(entries, key=attrgetter("name"))
    return _Level(iter(found), below, identity)


def _is_folder(entry: os.DirEntry[str], *, linked: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=linked)
    except OSError:  # a link that leads to itself: reading it as a file will say so
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether to read what a link leads to: no pipe, no device, no folder; a dead one fails."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True
