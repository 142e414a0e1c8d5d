"""Boundaries between the elements of an array, found faster than the elements are parsed.

Depth decides: a comma outside all strings and brackets ends an element. A text that starts at an
element and parses as whole elements ends at a true boundary, so a guess is enough if the validator
confirms it. Uniform elements begin alike, which makes a good guess.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.formats.decoder import decode
from asyncbatch.formats.positions import WHITE_SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.formats.validator import Validator

# The last alternative is an unclosed quote: no structure follows it.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]|"', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},:]|"', re.DOTALL)
_ESCAPE = re.compile(rb'\\[\\"]')  # the other escapes change nothing
_SAMPLE_BYTES = 4096  # bytes that tell whether a text has many escapes
_SPARSE_ESCAPES = 16  # bytes for each backslash of a text with few of them
_STRING_END = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
_REST = bytes(set(range(256)) - set(b'"[]{}'))  # all but quotes and brackets
# The change of the depth at each bracket, as signed bytes.
_DEPTH_CHANGES = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
STEP_BYTES = 64 * 1024  # at least 2; they stay in the cache of the processor
_PART_BYTES = 4 * 1024  # of a step with a boundary; they are searched token by token
_SHAPE_BYTES = 16  # bytes after a boundary that distinguish it from other commas
_MAX_MISSES = 2  # after this many wrong guesses in a row, no more guesses are made
# white space after an element that counts as its end, so that it can be dropped
_MIN_BLANK_BYTES = 1024 * 1024


class Cut(NamedTuple):
    """A boundary: `at` bytes, the opening byte and `elements` whole elements."""

    at: int
    elements: int


class ArrayCutter:
    """Cuts one array, window after window. For one thread at a time.

    `is_doubtful`: the last call of `cut` found a boundary that the validator refused.
    """

    def __init__(self, validator: Validator) -> None:
        self.is_doubtful: bool = False
        self._validator = validator
        self._scanner = BoundaryScanner()
        self._shape: bytes | None = None
        self._misses = 0

    def cut(self, text: bytes, byte: int) -> Cut | None:
        """Return the last boundary in `text`, which begins with a bracket or comma.

        `byte` is the offset of `text` in the stream. A longer text at the same offset, or the text
        from the boundary on, is not scanned again. Returns None after an error, or if no element is
        followed by a comma or the array's end.
        """
        self.is_doubtful = False
        guess = self._guess(text)
        if guess and (count := self._validator.count_fast(_as_array(text, guess))):
            self._misses = 0
            return Cut(guess, count)
        at = self._scanner.find(text, byte)
        if at and (count := self._count(text, at)):
            self._learn_shape(text, at, has_guessed=guess > 0)
            return Cut(at, count)
        self.is_doubtful = at > 0
        if len(text) > _MIN_BLANK_BYTES and not text[-_MIN_BLANK_BYTES:].strip(WHITE_SPACE):
            at = len(text.rstrip(WHITE_SPACE))
            if count := self._count(text, at):
                return Cut(at, count)
        return None

    def cut_before(self, text: bytes, fault: int) -> Cut | None:
        """Return the last boundary in `text` before its first error, if there is one."""
        at = BoundaryScanner().find(text[:fault], 0)
        count = self._count(text, at) if at else 0
        return Cut(at, count) if count else None

    def _count(self, text: bytes, at: int) -> int:
        """Return the number of elements before `at`; 0 if `at` is no boundary."""
        verdict = self._validator(_as_array(text, at))
        return verdict if isinstance(verdict, int) else 0

    def _guess(self, text: bytes) -> int:
        """Return the offset of the last text that looks like a boundary, or 0."""
        shape = b"," + text[1:_SHAPE_BYTES] if self._shape is None else self._shape
        if self._misses >= _MAX_MISSES or len(shape) < 2:
            return 0
        return max(0, text.rfind(shape, 1))

    def _learn_shape(self, text: bytes, at: int, *, has_guessed: bool) -> None:
        """Note the beginning that the element at the boundary `at` shares with those before."""
        seen = text[at : at + _SHAPE_BYTES]
        if not seen.startswith(b","):
            return
        self._misses += has_guessed
        known = b"," + text[1:_SHAPE_BYTES] if self._shape is None else self._shape
        if not seen.startswith(known) and len(seen) == _SHAPE_BYTES:
            same = len(known)
            while not seen.startswith(known[:same]):
                same -= 1
            self._shape = known[:same] if same > 1 else seen


def _as_array(text: bytes, at: int) -> bytes:
    return b"".join((b"[", memoryview(text)[1:at], b"]"))


class BoundaryScanner:
    """Finds the last boundary of an array's text, and reads each byte about once."""

    def __init__(self) -> None:
        self._byte = -1  # the offset in the stream up to which the text is scanned
        self._follower = _Follower()

    def find(self, text: bytes, byte: int) -> int:
        """Return the offset of the array's end in `text`, else of its last comma, else 0.

        Commas of the part that an earlier call has scanned do not count. `text` begins at offset
        `byte` of the stream, with a bracket or comma of the array.
        """
        if self._byte <= byte:
            self._byte, self._follower = byte + 1, _Follower()
        steps = self._follower.follow(text, self._byte - byte, len(text), STEP_BYTES)
        self._byte = byte + self._follower.at
        for step in reversed(steps):
            inside = _Follower(step.depth, step.in_string)
            for part in reversed(inside.follow(text, step.start, step.end, _PART_BYTES)):
                if found := _boundaries_of(text, part):
                    return found[-1]
        return 0


def find_boundaries(text: bytes) -> list[int]:
    """Return the offsets of the commas of an array, up to its end, which counts too.

    `text` begins with the bracket of the array.
    """
    steps = _Follower().follow(text, 1, len(text), STEP_BYTES)
    return [at for step in steps for at in _boundaries_of(text, step)]


class _Step(NamedTuple):
    """A step that may hold a boundary, with the state at its start."""

    start: int
    end: int
    depth: int
    in_string: bool


class _Follower:
    """Follows depth and strings through a text, up to the offset `at`."""

    def __init__(self, depth: int = 0, in_string: bool = False) -> None:
        self.at = 0
        self._depth, self._in_string = depth, in_string

    def follow(self, text: bytes, start: int, end: int, size: int) -> list[_Step]:
        """Return the steps of `size` bytes that may hold a boundary, up to the array's end."""
        steps: list[_Step] = []
        self.at = start
        while self.at < end:
            data = text[self.at : min(end, self.at + size)]
            if data.endswith(b"\\") and (len(data) - len(data.rstrip(b"\\"))) % 2:
                data = data[:-1]  # the next step begins with the whole escape
                if not data:
                    break
            step = _Step(self.at, self.at + len(data), self._depth, self._in_string)
            lowest = self._lowest_depth(self._brackets(data))
            self.at = step.end
            if lowest < 0 or (not lowest and b"," in data):
                steps.append(step)
            if lowest < 0:
                break
        return steps

    def _brackets(self, data: bytes) -> bytes:
        """Return the brackets outside strings, and follow the strings."""
        # Of two ways, one is faster for many escapes, and one for few.
        if data.count(b"\\", 0, _SAMPLE_BYTES) > _SAMPLE_BYTES // _SPARSE_ESCAPES:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        else:
            data = _ESCAPE.sub(b"", data)
        # Two quotes without a bracket between them change nothing.
        brackets = data.translate(None, _REST).replace(b'""', b"")
        if self._in_string or b'"' in brackets:
            parts = brackets.split(b'"')
            brackets = b"".join(parts[self._in_string :: 2])
            self._in_string = (len(parts) - 1 + self._in_string) % 2 == 1
        return brackets

    def _lowest_depth(self, brackets: bytes) -> int:
        """Return the lowest depth before and after each bracket, and follow the depth."""
        for _ in range(2):  # most brackets are those of small values, which leave the depth alone
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        changes = memoryview(brackets.translate(_DEPTH_CHANGES)).cast("b")
        depths = list(accumulate(changes, initial=self._depth))
        self._depth = depths[-1]
        return min(depths)


def _boundaries_of(text: bytes, step: _Step) -> list[int]:
    """Return the offsets of the array's commas in a step, up to its end, which counts too."""
    start, found, depth = step.start, [], step.depth
    if step.in_string:
        closed = _STRING_END.match(text, start, step.end)
        if closed is None:
            return []
        start = closed.end()
    for match in _BRACKET.finditer(text, start, step.end):
        token = text[match.start()]
        if token == 0x2C:
            if not depth:
                found.append(match.start())
        elif token in b"[{":
            depth += 1
        elif token in b"]}":
            if not depth:
                found.append(match.start())
                break
            depth -= 1
        elif match[0] == b'"':
            break
    return found


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
