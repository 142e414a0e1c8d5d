"""Which files of a folder are wanted."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.sources.patterns import DEFAULT_PATTERNS, Patterns

if TYPE_CHECKING:
    from collections.abc import Callable


class Selection(Struct, frozen=True):
    """The user's wishes: patterns to take, patterns to leave out, hidden names, linked folders."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False


class Filter:
    """A `Selection`, compiled. `below` is the path of a name's folder below the argument."""

    def __init__(self, selection: Selection) -> None:
        self.follow_symlinks = selection.follow_symlinks
        self.hidden = selection.hidden
        wants = Patterns(selection.patterns).fit
        self._excludes = Patterns(selection.exclude).fit if selection.exclude else None

        def takes_visible(name: str, below: str) -> bool:
            return name[0] != "." and wants(name, below)

        def takes(name: str, below: str) -> bool:
            return wants(name, below) and self.enters(name, below)

        quick = not selection.exclude and not selection.hidden
        self.takes_file: Callable[[str, str], bool] = takes_visible if quick else takes
        """Whether a file that was found is wanted; asked for every file, so kept quick."""

    def enters(self, name: str, below: str) -> bool:
        """Whether a folder that was found is to be looked into."""
        if name[0] == "." and not self.hidden:
            return False
        return self._excludes is None or not self._excludes(name, below)

    def excludes(self, path: str) -> bool:
        """Whether to leave out what was named, `path` below its argument, or a folder it is in."""
        excludes = self._excludes
        if excludes is None:
            return False
        parts = path.split("/")
        folders = accumulate(parts[:-1], lambda above, part: f"{above}{part}/", initial="")
        return any(map(excludes, parts, folders))
