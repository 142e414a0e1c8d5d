"""Fast validation of JSON texts, which also counts their records."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from asyncbatch.formats.positions import BOM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.formats.grammar import Fault
    from asyncbatch.formats.line_blocks import LineBlockParser

    Count = Callable[[bytes], int]
    Check = Callable[[bytes], object]

# Errors of the fast parsers. The parsers also refuse values that they cannot represent (integers of
# 64 bits and more, deep nesting), and their error positions are imprecise.
_REFUSALS = (ValueError, RuntimeError, RecursionError)


class Validator:
    """Returns the record count of a JSON text, or its first error.

    The count is the length of a top-level array, else 1. The limits are those of `formats.grammar`.
    A validator reuses one parser: each thread needs its own.
    """

    def __init__(self, count: Count, check: Check, blocks: LineBlockParser | None = None) -> None:
        """`count` returns the record count of a text; `check` only parses it, faster.

        `blocks` parses many lines at once, if that is faster.
        """
        self._count, self._check, self._blocks = count, check, blocks

    def __call__(self, text: bytes) -> int | Fault:
        """Return the record count of `text`, or its first error."""
        try:
            return self._count(text)
        except _REFUSALS:
            return _revalidate(text)

    def explain(self, text: bytes) -> int | Fault:
        """Return the same as `__call__` for a text that a fast parser has refused."""
        return _revalidate(text)

    def count_fast(self, text: bytes) -> int:
        """Return the record count of `text`, or 0 if the fast parser refuses it.

        A text that it refuses may be valid.
        """
        try:
            return self._count(text)
        except _REFUSALS:
            return 0

    def count_valid(self, text: bytes) -> int:
        """Return the record count of `text`, or 0 if it is invalid. Looks for no error.

        A text may be valid for the grammar alone, with values that no parser can represent: 0, too.
        """
        if count := self.count_fast(text):
            return count
        try:
            return _orjson_count()(text)
        except (ValueError, RecursionError):
            return 0

    def count_lines(self, lines: bytes) -> int:
        """Return the number of lines if each is one JSON text without a BOM, else 0.

        0 does not mean that a line is invalid or blank: then each has to be validated.
        """
        return self._blocks.count(lines) if self._blocks else 0

    def take_valid(self, texts: Iterator[bytes]) -> int:
        """Consume texts up to and including the first one refused; count the valid ones.

        A fast parser may refuse a valid text: `explain` decides.
        """
        check, count = self._check, 0
        try:
            for text in texts:
                check(text)
                count += 1
        except _REFUSALS:
            pass
        return count


def make_validator() -> Validator:
    """Return a validator with the fastest installed parser."""
    try:
        return _simdjson_validator()
    except ImportError:  # simdjson has no wheel for this Python version
        count = _orjson_count()
        return Validator(count, count)


def _simdjson_validator() -> Validator:
    """Return a validator of simdjson, which builds only the outermost Python value."""
    try:
        import csimdjson as simdjson
    except ImportError:  # the documented name, but its extras take 10 ms to import
        import simdjson
    from asyncbatch.formats.line_blocks import LineBlockParser

    array, parse = simdjson.Array, simdjson.Parser().parse

    def count(text: bytes) -> int:
        value = parse(text)  # the parser can be reused only after this value is freed
        return len(value) if type(value) is array else 1

    return Validator(count, parse, LineBlockParser(parse))


@cache
def _orjson_count() -> Count:
    """Return a counter that parses with orjson, at a third of simdjson's speed."""
    from orjson import loads

    def count(text: bytes) -> int:
        value = loads(text.removeprefix(BOM))
        return len(value) if isinstance(value, list) else 1

    return count


def _revalidate(text: bytes) -> int | Fault:
    """Validate a text that a fast parser refused: with orjson, then with the grammar."""
    try:
        return _orjson_count()(text)
    except (ValueError, RecursionError):
        from asyncbatch.formats.grammar import examine

        return examine(text)
