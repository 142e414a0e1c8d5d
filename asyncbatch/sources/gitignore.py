"""Ignore rules: the files that git leaves out, as `.gitignore` files say.

A pattern means the same as in gitignore(5) and in git's `wildmatch`. Names are bytes, as there: `?`
matches one byte.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.errors import UsageError
from asyncbatch.formats.positions import BOM

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = ".gitignore"
_REPOSITORY = ".git"
# The rules of one clone of a repository, below its `.git`.
_CLONE_FILE = "info/exclude"
_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb"\x09-\x0d ",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
_TOKEN = re.compile(
    rb"(?P<stars>\*+)|(?P<one>\?)|(?P<set>\[)|(?P<escaped>\\.)|(?P<text>[^*?\[\\]+)", re.DOTALL
)
# One item of a bracket expression: a class, a character, or a range.
_ITEM = re.compile(
    rb"\[:(?P<name>[^\]]*):\]|(?P<first>\\.|[^\\])(?:-(?!\])(?P<last>\\.|[^\\]))?", re.DOTALL
)


class Rule(NamedTuple):
    """One pattern of an ignore file."""

    matches: re.Pattern[bytes]
    is_path: bool  # whether it matches the path below the file's folder, and not the name alone
    folders_only: bool
    is_negated: bool  # whether it includes again

    def decides(self, name: bytes, path: bytes, *, is_folder: bool) -> bool:
        """Whether the pattern matches."""
        if self.folders_only and not is_folder:
            return False
        return self.matches.fullmatch(path if self.is_path else name) is not None


class IgnoreRules:
    """The rules that hold in a folder: those of its own ignore file, and of the folders above it.

    `below` is the path of the folder below the folder of the file, empty or with `/` at its end.
    """

    def __init__(
        self, rules: tuple[Rule, ...], below: bytes = b"", above: IgnoreRules | None = None
    ) -> None:
        self._rules, self._below, self._above = rules, below, above

    @classmethod
    def of_root(cls, folder: str) -> IgnoreRules:
        """Return the rules in a folder: its own, and those up to the root of its repository."""
        path = os.path.abspath(folder)
        folders = [path]
        while not os.path.lexists(os.path.join(path, _REPOSITORY)):
            path, before = os.path.dirname(path), path
            if path == before:  # no repository: the rules begin at the folder itself
                return cls(_read(os.path.join(folder, _FILE)))
            folders.append(path)
        clone = os.path.join(path, _REPOSITORY, _CLONE_FILE)
        found = cls(_read(os.path.join(path, _FILE)), above=cls(_read(clone)))
        for one in reversed(folders[:-1]):
            found = found.within(one)
        return found

    def within(self, folder: str) -> IgnoreRules:
        """Return the rules in a folder that is in this one."""
        step = os.fsencode(os.path.basename(folder)) + b"/"
        here = self._moved(step)
        rules = _read(os.path.join(folder, _FILE))
        return IgnoreRules(rules, above=here) if rules else here

    def _moved(self, step: bytes) -> IgnoreRules:
        above = None if self._above is None else self._above._moved(step)
        return IgnoreRules(self._rules, self._below + step, above)

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Whether an entry of the folder is ignored. The last rule of the nearest file counts."""
        if name == _REPOSITORY:
            return True
        encoded = os.fsencode(name)
        rules: IgnoreRules | None = self
        while rules is not None:
            path = rules._below + encoded
            for rule in reversed(rules._rules):
                if rule.decides(encoded, path, is_folder=is_folder):
                    return not rule.is_negated
            rules = rules._above
        return False


def _read(path: str) -> tuple[Rule, ...]:
    """Return the rules of an ignore file, none if there is no file.

    Raises UsageError if it cannot be read: files would be read that should not.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ()
    except OSError as error:
        raise UsageError(f"--gitignore: cannot read {path}: {error.strerror}") from None
    return tuple(_parse(text.removeprefix(BOM)))


def _parse(text: bytes) -> Iterator[Rule]:
    for line in text.split(b"\n"):
        pattern = _without_blanks(line.removesuffix(b"\r"))
        if not pattern or pattern.startswith(b"#"):
            continue
        is_negated = pattern.startswith(b"!")
        pattern = pattern.removeprefix(b"!")
        folders_only = pattern.endswith(b"/")
        pattern = pattern.removesuffix(b"/")
        is_path = b"/" in pattern
        regex = _translate(pattern.removeprefix(b"/"), is_path=is_path)
        if regex is not None and pattern:
            yield Rule(re.compile(regex, re.DOTALL), is_path, folders_only, is_negated)


def _without_blanks(line: bytes) -> bytes:
    """Return a line without the blanks at its end, except one behind a backslash."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + 1] if backslashes % 2 and len(line) > len(kept) else kept


def _translate(pattern: bytes, *, is_path: bool) -> bytes | None:
    """Return a pattern as a regular expression, or None if it is malformed and matches nothing."""
    regex, at, is_first = b"", 0, True  # the first wildcard or backslash
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None:  # a backslash at the end
            return None
        kind, text, at = found.lastgroup, found[0], found.end()
        if kind == "set":
            translated = _translate_set(pattern, at)
            if translated is None:
                return None
            part, at = translated
        elif kind == "stars":
            # Two stars between slashes, or at an end, match slashes too. Git compares the literal
            # text before the first wildcard separately, so that a pattern begins behind it.
            is_deep = len(text) > 1 and (is_first or pattern[: found.start()].endswith(b"/"))
            if is_path and is_deep and pattern[at : at + 1] == b"/":
                part, at = b"(?:.*/)?", at + 1
            else:
                part = b".*" if not is_path or (is_deep and at == len(pattern)) else b"[^/]*"
        else:
            part = b"[^/]" if kind == "one" else re.escape(text[-1:] if kind == "escaped" else text)
        regex += part
        is_first = is_first and kind == "text"
    return regex


def _translate_set(pattern: bytes, start: int) -> tuple[bytes, int] | None:
    """Translate the bracket expression behind a `[`; return it and the place behind its `]`."""
    is_negated = pattern[start : start + 1] in (b"!", b"^")
    start, parts = start + is_negated, b""
    at = start
    while at == start or pattern[at : at + 1] != b"]":
        found = _ITEM.match(pattern, at)
        if found is None or (found["name"] is not None and found["name"] not in _CLASSES):
            return None
        at = found.end()
        if found["name"] is not None:
            parts += _CLASSES[found["name"]]
        else:
            first, last = found["first"][-1:], (found["last"] or b"")[-1:]
            # The first character of a range counts also if the range is empty.
            parts += re.escape(first) + (b"-" + re.escape(last)) * (first <= last)
    return b"(?!/)[" + b"^" * is_negated + parts + b"]", at + 1
