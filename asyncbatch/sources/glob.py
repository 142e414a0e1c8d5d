"""Quoted globs, expanded like a shell would, but lazily and in order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.sources.patterns import Patterns, has_magic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def static_root(pattern: str) -> str:
    """Return the folder that holds all that `pattern` can match: its part without magic."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")


def expand(pattern: str, *, hidden: bool) -> Iterator[str]:
    """Yield the paths that fit `pattern`, sorted within each folder.

    `**` is any number of folders, links not followed. Unless `hidden`, a name that begins
    with a dot fits only a segment that does.
    """
    root = "/" if pattern.startswith("/") else ""
    parts: list[str] = []
    for part in filter(None, pattern.split("/")):
        if part != "**" or parts[-1:] != ["**"]:  # two in a row mean what one does
            parts.append(part)
    yield from _expand(root, parts, hidden=hidden)


def _expand(base: str, parts: Sequence[str], *, hidden: bool) -> Iterator[str]:
    head, rest = parts[0], parts[1:]
    if not has_magic(head):
        path = base + head
        if not rest and os.path.lexists(path):
            yield path
        elif rest and os.path.isdir(path):
            yield from _expand(path + "/", rest, hidden=hidden)
        return
    any_depth = head == "**"
    if any_depth and rest:
        yield from _expand(base, rest, hidden=hidden)
    fits = Patterns([head]).fit
    for name, is_folder, is_link in _sorted_entries(base or "."):
        visible = hidden or name[0] != "." or head[0] == "."
        if not visible or not (any_depth or fits(name, "")):
            continue
        if any_depth and is_folder and not is_link:
            yield from _expand(f"{base}{name}/", parts, hidden=hidden)
        elif not rest and not (any_depth and is_folder):
            yield base + name
        elif rest and not any_depth and is_folder:
            yield from _expand(f"{base}{name}/", rest, hidden=hidden)


def _sorted_entries(folder: str) -> list[tuple[str, bool, bool]]:
    """Return name, folder or not, link or not; nothing of a folder that cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
    except OSError:
        return []
