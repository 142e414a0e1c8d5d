"""Boundaries between the elements of an array, found nearly as fast as parsing.

A text that starts at an element and parses as whole elements ends at a true boundary. So a guess is
enough if the validator confirms it: first a position that looks like the last boundary, then a
position found by counting brackets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.formats.decoder import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.formats.validator import Validator

_SPACE = b" \t\n\r"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# The last alternative is an unclosed quote: no structure follows it.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]|"', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},:]|"', re.DOTALL)
# bytes before the end that are searched token by token, before the whole text is
_TAIL_BYTES = 16 * 1024, 1024 * 1024
_SEARCH_BYTES = 16  # bytes after a boundary that distinguish it from other commas
_MAX_GUESSES = 2
_MAX_MISSES = 4  # after this many failed windows in a row, no more guesses are made
# white space after an element that counts as its end, so that it can be dropped
_MIN_BLANK_BYTES = 1024 * 1024


class Cut(NamedTuple):
    """A boundary: `at` bytes, the opening byte and `elements` whole elements."""

    at: int
    elements: int


class ArrayCutter:
    """Cuts one array, window after window. For one thread at a time."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator
        self._shape: bytes | None = None
        self._misses = 0

    def cut(self, text: bytes) -> Cut | None:
        """Return the last boundary in `text`, which begins with a bracket or comma.

        Returns None after an error, or if no element is followed by a comma or the array's end.
        """
        tried = set()
        for at in self._candidates(text):
            if at not in tried and (count := self._count(text, at)):
                self._learn_shape(text, at)
                return Cut(at, count)
            tried.add(at)
        return None

    def cut_before(self, text: bytes, fault: int) -> Cut | None:
        """Return the last boundary in `text` before its first error, if there is one."""
        at = _find_boundary(text[:fault], 1, 0)
        count = self._count(text, at) if at else 0
        return Cut(at, count) if count else None

    def _count(self, text: bytes, at: int) -> int:
        """Return the number of elements before `at`; 0 if `at` is no boundary."""
        verdict = self._validator(b"[%b]" % text[1:at])
        return verdict if isinstance(verdict, int) else 0

    def _candidates(self, text: bytes) -> Iterator[int]:
        shape = b"," + text[1:_SEARCH_BYTES] if self._shape is None else self._shape
        if self._misses < _MAX_MISSES and len(shape) > 1:
            at = len(text)
            for _ in range(_MAX_GUESSES):
                at = text.rfind(shape, 1, at)
                if at < 1:
                    break
                yield at
            self._misses += 1
        for tail in _TAIL_BYTES:
            start = len(text) - tail
            if start <= 1:
                break
            from_string, depth = _depth_at(text, start)
            if depth >= 0 and (at := _find_boundary(text, from_string, depth)):
                yield at
                break
        # The array may have ended before the tail.
        if at := _find_boundary(text, 1, 0):
            yield at
        if len(text) > _MIN_BLANK_BYTES and not text[-_MIN_BLANK_BYTES:].strip(_SPACE):
            yield len(text.rstrip(_SPACE))

    def _learn_shape(self, text: bytes, at: int) -> None:
        seen = text[at : at + _SEARCH_BYTES]
        if not seen.startswith(b","):
            return
        known = b"," + text[1:_SEARCH_BYTES] if self._shape is None else self._shape
        if seen.startswith(known):
            self._misses = 0
        elif len(seen) == _SEARCH_BYTES:
            same = len(known)
            while not seen.startswith(known[:same]):
                same -= 1
            self._shape = known[:same] if same > 1 else seen


def _depth_at(text: bytes, end: int) -> tuple[int, int]:
    """Return the depth at `end`, or at the start of a string that contains `end`."""
    rest = _STRING.sub(b"", text[1:end])
    quote = rest.find(b'"')
    if quote >= 0:
        end -= len(rest) - quote
        rest = rest[:quote]
    opened = rest.count(b"[") + rest.count(b"{")
    return end, opened - rest.count(b"]") - rest.count(b"}")


def _find_boundary(text: bytes, start: int, depth: int) -> int:
    """Return the offset of the array's end, else of its last comma, else 0."""
    boundary = 0
    for match in _BRACKET.finditer(text, start):
        token = text[match.start()]
        if token == 0x2C:
            if not depth:
                boundary = match.start()
        elif token in b"[{":
            depth += 1
        elif token in b"]}":
            if not depth:
                return match.start()
            depth -= 1
        elif match[0] == b'"':
            break
    return boundary


def find_array(text: bytes, tokens: Sequence[str]) -> int | None:
    """Return the offset of the array at a JSON Pointer, None if it is not in `text`.

    `text` is the beginning of a document, at least up to that array.
    """
    keys: list[str | int | None] = []
    wanted = list(tokens)
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in b"[{":
            if token == b"[" and len(keys) == len(wanted) and list(map(str, keys)) == wanted:
                return match.start()
            keys.append(0 if token == b"[" else None)
        elif token in b"]}":
            if not keys:
                return None
            keys.pop()
        elif token == b",":
            if keys:
                index = keys[-1]
                keys[-1] = index + 1 if isinstance(index, int) else None
        elif token == b'"':
            return None
        elif token != b":" and keys and keys[-1] is None and len(keys) <= len(wanted):
            try:
                keys[-1] = str(decode(token))
            except ValueError:  # an invalid escape or byte; the next reader reports it
                return None
    return None
