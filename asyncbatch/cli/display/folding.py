"""Lines that fit into a terminal, folded between words: a path is never broken."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HANGING = "  "
_MIN_WIDTH = 20  # of the text: a narrower terminal folds the lines itself


def fold(
    words: Sequence[str], width: int | None, indent: str = "", hanging: str = _HANGING
) -> Iterator[str]:
    """Yield words as lines of at most `width` columns; None: one line.

    The first line begins with `indent`, and each further one with `hanging`. A word that is longer
    than a line has one to itself, and more columns.
    """
    if width is None or width < len(hanging) + _MIN_WIDTH:
        yield indent + " ".join(words)
        return
    line, used, is_empty = indent, columns(indent), True
    for word in words:
        needed = columns(word)
        if not is_empty and used + 1 + needed > width:
            yield line.rstrip()
            line, used, is_empty = hanging, len(hanging), True
        line += word if is_empty else f" {word}"
        used += needed + (not is_empty)
        is_empty = False
    yield line


def fold_line(line: str, width: int | None, hanging: str = _HANGING) -> Iterator[str]:
    """Yield a line as lines of at most `width` columns. Further ones keep its indentation."""
    text = line.lstrip(" ")
    indent = line[: len(line) - len(text)]
    yield from fold(text.split(" "), width, indent, indent + hanging)


def fold_text(text: str, width: int | None) -> str:
    """Return a text of several lines with each line folded."""
    if width is None:
        return text
    return "\n".join(folded for line in text.split("\n") for folded in fold_line(line, width))


def columns(text: str) -> int:
    """Return the columns that printable text takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    return 2 if east_asian_width(char) in "FW" else 1
