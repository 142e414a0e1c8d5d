"""JSON texts and JSON Lines without white space between their parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Raw
from msgspec.json import format as format_json

from asyncbatch.formats.decoder import decode_array, encode_lines
from asyncbatch.formats.positions import WHITE_SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

# A space beside a sign of JSON, or beside a line end. It may be inside of a string.
_SPACE_AT_SIGN = re.compile(rb" (?:[\]},:\n]|(?<=[\[{,:\n] ))")


def is_surely_compact(lines: bytes) -> bool:
    """Whether lines of valid JSON, or one line, have no white space but LF; in doubt, False.

    JSON allows no tab and no CR in a string. A space between two parts of a text is beside a sign
    (one of two adjacent parts is a sign), or beside other white space, or at an end of the text.
    """
    if b"\t" in lines or b"\r" in lines:  # searching one byte is ten times as fast
        return False
    if b" " not in lines:
        return True
    return not (lines.startswith(b" ") or lines.endswith(b" ") or _SPACE_AT_SIGN.search(lines))


def compact(text: bytes) -> bytes:
    """Return a valid JSON text without white space between its parts."""
    if b"\n" not in text and is_surely_compact(text):
        return text
    return format_json(text, indent=-1)


def array_lines(array: bytes) -> tuple[bytes, int]:
    """Return the elements of a valid array as compact JSON Lines, and their number."""
    elements = decode_array(compact(array.strip(WHITE_SPACE)))
    return encode_lines(elements), len(elements)


def text_lines(texts: Sequence[bytes | Raw], *, is_one_line: bool = False) -> bytes:
    """Return valid JSON texts, without white space around them, as compact JSON Lines.

    `is_one_line`: it is known that no text has an LF.
    """
    if len(texts) == 1:  # which may be huge
        return compact(bytes(texts[0])) + b"\n"
    lines = b"\n".join((*texts, b""))
    if is_surely_compact(lines) and (is_one_line or lines.count(b"\n") == len(texts)):
        return lines
    array = b"[%b]" % b",".join(texts)
    formatted = format_json(array, indent=-1)
    return lines if formatted == array else encode_lines(decode_array(formatted))


def compact_lines(lines: bytes) -> bytes:
    """Return valid JSON Lines without white space but LF; the last line may lack its LF."""
    if not lines.endswith(b"\n"):
        lines += b"\n"
    if is_surely_compact(lines):
        return lines
    if lines.find(b"\n") == len(lines) - 1:  # one line, which may be huge
        return format_json(lines, indent=-1) + b"\n"
    array = b"[%b]" % lines[:-1].replace(b"\n", b",")
    formatted = format_json(array, indent=-1)
    return lines if formatted == array else encode_lines(decode_array(formatted))


def decode_lines(lines: bytes) -> list[Raw]:
    """Return compact JSON Lines, each ended by LF, one by one."""
    return list(map(Raw, lines.split(b"\n")[:-1]))
