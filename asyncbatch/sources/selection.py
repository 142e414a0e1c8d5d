"""Which files of a folder are wanted."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.sources.patterns import DEFAULT_PATTERNS, Patterns


class Selection(Struct, frozen=True):
    """The user's wishes: patterns to take, patterns to leave out, hidden names, linked folders."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False


class Filter:
    """A `Selection`, compiled."""

    def __init__(self, selection: Selection) -> None:
        self.follow_symlinks = selection.follow_symlinks
        self._wanted = Patterns(selection.patterns)
        self._excluded = Patterns(selection.exclude) if selection.exclude else None
        self.hidden = selection.hidden

    def takes_file(self, name: str, below: str) -> bool:
        """Whether a file found at `below` its argument is wanted."""
        return self._wanted.fit(name, below) and self.enters(name, below)

    def enters(self, name: str, below: str) -> bool:
        """Whether a folder found at `below` its argument is to be looked into."""
        if name[0] == "." and not self.hidden:
            return False
        return not self.excludes(name, below)

    def excludes(self, name: str, below: str) -> bool:
        """Whether the user said to leave this out, however it was named."""
        return self._excluded is not None and self._excluded.fit(name, below)
