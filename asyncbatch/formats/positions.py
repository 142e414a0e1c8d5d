"""Conversion of byte offsets into lines, columns and JSON Pointers."""

from __future__ import annotations

import codecs
import ctypes
import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from asyncbatch.formats.decoder import allow_deep_nesting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Buffer: TypeAlias = bytes | memoryview | msgspec.Raw
    Tokens: TypeAlias = Sequence[str | int]

BOM = b"\xef\xbb\xbf"
WHITE_SPACE = b" \t\n\r"  # of JSON (RFC 8259, section 2)


class TextPosition(NamedTuple):
    """A position in a text: `line` and `column` count from 1, `byte` from 0."""

    line: int
    column: int
    byte: int


_PIECE_BYTES = 64 * 1024


def count_code_points(text: bytes, start: int = 0) -> int:
    """Return the length of `text[start:]` as a string, invalid bytes replaced.

    The string itself would take up to four times the memory of a text of many megabytes.
    """
    if len(text) - start <= _PIECE_BYTES:
        return len(text[start:].decode("utf-8", "replace"))
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    pieces = (text[at : at + _PIECE_BYTES] for at in range(start, len(text), _PIECE_BYTES))
    return sum(len(decode(piece)) for piece in pieces) + len(decode(b"", final=True))


def locate_byte(text: bytes, byte: int, *, line: int = 1, offset: int = 0) -> TextPosition:
    """Return the position of `text[byte]`, or of the end, in a stream.

    `text` begins at `line` and at byte `offset` of the stream. A line ends at LF. A column is a
    code point. A byte order mark takes no column.
    """
    line_start = text.rfind(b"\n", 0, byte) + 1
    before = text[line_start:byte]
    if offset == 0 and line_start == 0:
        before = before.removeprefix(BOM)
    column = count_code_points(before) + 1
    return TextPosition(line + text.count(b"\n", 0, byte), column, offset + byte)


class Locator:
    """Finds the positions of many bytes of one text without a byte order mark.

    Fast if each byte lies after the previous one, even in long lines. The text begins at `line`,
    `column` and byte `offset` of its stream.
    """

    def __init__(self, text: bytes, *, line: int = 1, column: int = 1, offset: int = 0) -> None:
        self._text, self._offset = text, offset
        self.line: int = line  # of the begin of the text
        self._first = self._last = TextPosition(line, column, 0)

    def locate(self, byte: int) -> TextPosition:
        """Return the position of `text[byte]`, as `locate_byte` does."""
        last = self._last if byte >= self._last.byte else self._first
        between = self._text[last.byte : byte]
        above, newline, before = between.rpartition(b"\n")
        line = last.line + above.count(b"\n") + len(newline)
        column = count_code_points(before) + (1 if newline else last.column)
        self._last = TextPosition(line, column, byte)
        return self._last._replace(byte=self._offset + byte)


_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]*")

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def parse_pointer(text: str) -> tuple[str, ...]:
    """Return the tokens of a JSON Pointer; the empty pointer has none.

    Raises ValueError with the reason.
    """
    if not text:
        return ()
    if not text.startswith("/"):
        near = format_pointer(text.split("."))
        raise ValueError(
            f"{text!r} is not a JSON Pointer: it must be empty or begin with /, as {near!r} does"
        )
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"{text!r} is not a JSON Pointer: write ~ as ~0, / within a name as ~1")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))


def format_pointer(tokens: Iterable[str | int]) -> str:
    """Return the JSON Pointer of `tokens`."""
    return "".join(f"/{str(token).replace('~', '~0').replace('/', '~1')}" for token in tokens)


def find_values(text: bytes, pointers: Iterable[Tokens]) -> list[int | None]:
    """Return the offset of the value at each pointer, None where there is no value.

    `text` is one valid JSON text, with or without a byte order mark. Of a repeated key the last
    value counts. Each container on the way is read once, without its nested values.
    """
    offsets: list[int | None] = []
    seen: dict[tuple[str, ...], Buffer | None] = {(): _root(text)}
    outlines: dict[tuple[str, ...], dict[str, msgspec.Raw] | list[msgspec.Raw]] = {}
    for pointer in pointers:
        tokens = tuple(map(str, pointer))
        at = _descend(tokens, seen, outlines)
        offsets.append(None if at is None else offset_of(text, at))
    return offsets


def find_elements(text: bytes, pointer: Tokens) -> list[msgspec.Raw] | None:
    """Return the texts of the elements of the array at `pointer`, or None."""
    at = text_at(text, pointer)
    if at is None or not _starts_value(at, b"["):
        return None
    return _decode_array(at)


def text_at(text: bytes, pointer: Tokens) -> Buffer | None:
    """Return the text of the value at `pointer` as a view of `text`, or None."""
    return _descend(tuple(map(str, pointer)), {(): _root(text)}, {})


def offset_of(text: bytes, part: Buffer) -> int:
    """Return the offset in `text` of `part`, which is a view of `text`."""
    return _address(part) - _address(text)


def _root(text: bytes) -> memoryview:
    """Return the document without its byte order mark and leading white space."""
    allow_deep_nesting()
    start = len(BOM) if text.startswith(BOM) else 0
    while text[start : start + 1] and text[start] in WHITE_SPACE:
        start += 1
    return memoryview(text)[start:]


def _descend(
    tokens: tuple[str, ...],
    seen: dict[tuple[str, ...], Buffer | None],
    outlines: dict[tuple[str, ...], dict[str, msgspec.Raw] | list[msgspec.Raw]],
) -> Buffer | None:
    """Return the value at `tokens`. Caches visited values in `seen` and `outlines`."""
    known = next(depth for depth in range(len(tokens), -1, -1) if tokens[:depth] in seen)
    at = seen[tokens[:known]]
    for depth in range(known, len(tokens)):
        if at is None:
            return None
        parent = tokens[:depth]
        if parent not in outlines:
            outlines[parent] = _outline(at)
        at = seen[tokens[: depth + 1]] = _child(outlines[parent], tokens[depth])
    return at


def _outline(at: Buffer) -> dict[str, msgspec.Raw] | list[msgspec.Raw]:
    if _starts_value(at, b"{"):
        return _decode_object(at)
    return _decode_array(at) if _starts_value(at, b"[") else []


def _child(outline: dict[str, msgspec.Raw] | list[msgspec.Raw], token: str) -> msgspec.Raw | None:
    if isinstance(outline, dict):
        return outline.get(token)
    if _INDEX.fullmatch(token) and len(token) < 20 and int(token) < len(outline):
        return outline[int(token)]
    return None


def _starts_value(at: Buffer, byte: bytes) -> bool:
    return bytes(memoryview(at)[:1]) == byte


class _PyBuffer(ctypes.Structure):
    """CPython's `Py_buffer`. Only its address is used."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address(view: Buffer) -> int:
    """Return the memory address of a view.

    msgspec copies no bytes, so addresses can be compared. A `memoryview` does not expose its
    address, and ctypes' `from_buffer` needs writable memory.
    """
    buffer = _PyBuffer()
    reference = ctypes.byref(buffer)
    # flags 0: PyBUF_SIMPLE
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), reference, 0)
    try:
        return int(buffer.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(reference)
