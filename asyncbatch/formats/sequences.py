"""Sequences of JSON values without line ends: concatenated values, and RFC 7464."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.records import Position
from asyncbatch.formats.arrays import position_after, text_position_after
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.grammar import Fault, examine
from asyncbatch.formats.lines import INNER_BOM, InvalidLine
from asyncbatch.formats.positions import BOM, WHITE_SPACE, Locator
from asyncbatch.storage.local import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.formats.validator import Validator

SEPARATOR = b"\x1e"  # of RFC 7464: each text begins with it

_SPACE = re.compile(rb"[ \t\r\n]*+")
# A bracket that may close a value: no further part of an outer value follows.
_CLOSER = re.compile(rb"[}\]](?=[ \t\r\n]*+(?:[^,:}\] \t\r\n]|\Z))")
_CLOSER_TRIES = 2  # closers that are tried before a value is scanned from its beginning
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]|"', re.DOTALL)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n\[\]{}",:\x1e]++')
_EXAMINED_BYTES = 1024 * 1024  # of a value without an end, to tell an error from a long value
_EDGE_BYTES = 64  # an error so near the end of a text may be caused by the end


class ValidValues(NamedTuple):
    """Consecutive values, each a JSON text. `offsets` are their first bytes in the block."""

    record: int  # the number (from 1) of the first
    texts: Sequence[bytes]
    offsets: Sequence[int]
    locator: Locator  # of the block's text


class ValueBlock(NamedTuple):
    """Whole values of a sequence, and the text that holds them."""

    start: Position
    text: bytes
    texts: list[bytes]
    offsets: list[int]  # of each value, in `text`
    faults: dict[int, Fault]  # errors by index in `texts`
    end: Position

    def split(self) -> Iterator[ValidValues | InvalidLine]:
        """Yield the valid values in groups and each invalid value, in order."""
        start, at = self.start, 0
        locator = Locator(
            self.text, line=start.line + 1, column=start.column + 1, offset=start.byte
        )
        for index, fault in (*self.faults.items(), (len(self.texts), None)):
            if index > at:
                texts, offsets = self.texts[at:index], self.offsets[at:index]
                yield ValidValues(start.record + 1 + at, texts, offsets, locator)
            if fault is not None:
                position = locator.locate(self.offsets[index] + fault.byte)
                yield InvalidLine(start.record + 1 + index, fault, position, self.texts[index])
            at = index + 1


# Takes a text and whether the stream ends with it. Returns the values with their offsets and
# faults, and the end of the last.
_Cut = tuple[list[bytes], list[int], dict[int, Fault], int]


def read_concatenated(
    chunks: Iterable[bytes], validator: Validator, max_bytes: int, start: Position | None = None
) -> Iterator[ValueBlock]:
    """Yield the values of a stream in which values follow each other, with or without white space.

    A value with an error is a fault if its brackets and quotes show its end. Otherwise raises
    InvalidTextError, after all values before it; TooLargeError for a value of more than `max_bytes`
    bytes; and the errors of reading. The stream begins at `start`.
    """

    def cut(text: bytes, *, is_end: bool) -> _Cut:
        return _cut_concatenated(text, validator, is_end=is_end)

    return _blocks(chunks, cut, max_bytes, start)


def read_sequence(
    chunks: Iterable[bytes], validator: Validator, max_bytes: int, start: Position | None = None
) -> Iterator[ValueBlock]:
    """Yield the values of a JSON text sequence (RFC 7464); see `read_concatenated`."""

    def cut(text: bytes, *, is_end: bool) -> _Cut:
        return _cut_sequence(text, validator, is_end=is_end)

    return _blocks(chunks, cut, max_bytes, start)


def _blocks(
    chunks: Iterable[bytes], cut: Callable[..., _Cut], max_bytes: int, start: Position | None
) -> Iterator[ValueBlock]:
    source = filter(None, chunks)
    at, text, wanted, is_end = start or Position(), b"", len(BOM), False
    while not is_end:
        pieces, size = [text], len(text)
        while size < wanted or len(pieces) == 1:
            chunk = next(source, None)
            if chunk is None:
                is_end = True
                break
            pieces.append(chunk)
            size += len(chunk)
        text = b"".join(pieces)
        if not at.byte and text.startswith(BOM):
            at, text = Position(len(BOM)), text[len(BOM) :]
        texts, offsets, faults, end = cut(text, is_end=is_end)
        if end:
            after = position_after(at, text[:end], len(texts))
            yield ValueBlock(at, text[:end], texts, offsets, faults, after)
            at, text = after, text[end:]
        if not texts and text:
            _check_unfinished(text, at, is_end=is_end)
        if len(text) > max_bytes:
            message = f"record {at.record + 1:,} has more than {max_bytes:,} bytes, the limit"
            raise TooLargeError(len(text), max_bytes, message)
        wanted = 2 * len(text)
    if text:
        _check_unfinished(text, at, is_end=True)


def _check_unfinished(text: bytes, at: Position, *, is_end: bool) -> None:
    """Raise InvalidTextError for an error in a value without an end."""
    if not is_end and len(text) < _EXAMINED_BYTES:
        return
    text = text if is_end else text[:_EXAMINED_BYTES]
    start = len(text) - len(text.lstrip(WHITE_SPACE))
    verdict = examine(text[start:])
    if is_end and not isinstance(verdict, Fault):
        verdict = Fault("invalid_json", 0, "is not one value")
    if isinstance(verdict, Fault) and (is_end or verdict.byte < len(text) - start - _EDGE_BYTES):
        byte = start + verdict.byte
        raise InvalidTextError(verdict, text_position_after(at, text[:byte]))


def _cut_concatenated(text: bytes, validator: Validator, *, is_end: bool) -> _Cut:
    texts: list[bytes] = []
    offsets: list[int] = []
    faults: dict[int, Fault] = {}
    at = 0
    while True:
        space = _SPACE.match(text, at)
        start = space.end() if space else at
        if start == len(text):
            return texts, offsets, faults, start
        found = _next_value(text, start, validator, is_end=is_end)
        if found is None:
            return texts, offsets, faults, at
        value, fault = found
        if fault is not None:
            faults[len(texts)] = fault
        texts.append(value)
        offsets.append(start)
        at = start + len(value)


def _next_value(
    text: bytes, start: int, validator: Validator, *, is_end: bool
) -> tuple[bytes, Fault | None] | None:
    """Return the value at `start` and its error; None if its end cannot be found."""
    if text[start] not in b"[{":
        match = (_STRING if text[start] == ord('"') else _SCALAR).match(text, start)
        if match is None or (match.end() == len(text) and not is_end and text[start] != ord('"')):
            return None
        return match[0], _fault_of(match[0], validator)
    # A valid value is never the beginning of another one, so a valid guess is right.
    closers = _CLOSER.finditer(text, start)
    for match, _ in zip(closers, range(_CLOSER_TRIES), strict=False):
        value = text[start : match.end()]
        if validator.take_valid(iter((value,))):
            return value, None
    depth = 0
    for token in _TOKEN.finditer(text, start):
        byte = token[0]
        if byte in (b"[", b"{"):
            depth += 1
        elif byte in (b"]", b"}"):
            depth -= 1
            if not depth:
                value = text[start : token.end()]
                return value, _fault_of(value, validator)
        elif byte == b'"':  # a string without an end
            return None
    return None


def _fault_of(text: bytes, validator: Validator) -> Fault | None:
    """Return the error of a value, which does not begin the file."""
    if text.startswith(BOM):
        return Fault("invalid_json", 0, INNER_BOM)
    verdict = validator(text)
    return verdict if isinstance(verdict, Fault) else None


def _cut_sequence(text: bytes, validator: Validator, *, is_end: bool) -> _Cut:
    texts: list[bytes] = []
    offsets: list[int] = []
    faults: dict[int, Fault] = {}
    at = 0
    end = len(text) if is_end else max(0, text.rfind(SEPARATOR))
    while at < end:
        is_begun = text[at : at + 1] == SEPARATOR
        after = text.find(SEPARATOR, at + 1, end)
        after = end if after < 0 else after
        part = text[at + is_begun : after]
        value = part.strip(WHITE_SPACE)
        if value:
            fault = _fault_of(value, validator)
            if fault is None and not is_begun:
                fault = Fault("invalid_json", 0, "no record separator (0x1e) is before the value")
            if fault is None and value[0] not in b'[{"' and part.endswith(value):
                # A number or a word without white space after it may be a part of itself.
                message = "may be cut short: no white space follows the value (RFC 7464, 2.4)"
                fault = Fault("invalid_json", len(value), message)
            if fault is not None:
                faults[len(texts)] = fault
            texts.append(value)
            offsets.append(at + is_begun + part.index(value))
        at = after
    return texts, offsets, faults, end
