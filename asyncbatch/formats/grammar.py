"""The JSON grammar, checked byte by byte for the place and reason of an error."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Literal, NamedTuple, NoReturn

from asyncbatch.formats.positions import BOM, WHITE_SPACE

FaultKind = Literal["invalid_json", "encoding", "too_deep", "empty"]


class Fault(NamedTuple):
    """The first error in a text, and its byte offset."""

    kind: FaultKind
    byte: int
    message: str


MAX_DEPTH = 1024  # deeper nesting is refused; simdjson's default limit
# Longer integers are refused: the limit of Python's int() (CVE-2020-10735). A minus sign counts as
# a digit, as in msgspec, which decodes the values.
MAX_INTEGER_DIGITS = 4300
MAX_INTEGER, MIN_INTEGER = 10**MAX_INTEGER_DIGITS - 1, 1 - 10 ** (MAX_INTEGER_DIGITS - 1)

# Possessive quantifiers (++, *+) never backtrack, so no input can make a match slow.
_SPACE = re.compile(rb"[ \t\n\r]*+")
# Not possessive as a whole: up to 3.11.4, Python does not go back to the end of the last repetition
# if the next one fails midway, as a bad escape does (gh-106052). The limit bounds the memory of a
# match, 250 bytes a repetition.
_PLAIN = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,10000}')
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_HEX = re.compile(rb"[0-9a-fA-F]{0,4}+")
_DIGITS = re.compile(rb"[0-9]*+")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_FOREIGN_WORD = re.compile(rb"NaN|-?Infinity|[A-Za-z_]+")
# A text of ASCII characters in UTF-16 or UTF-32 has NUL bytes, which JSON never has.
# Strings and numbers need a second character: one NUL byte in them is just an invalid byte.
_UTF_16 = re.compile(
    rb"\xff\xfe|\xfe\xff|[\[{\t\n\r ]\0|\0[\[{\t\n\r ]|[!-~]\0(?:[ -~]\0|$)|\0[!-~](?:\0[ -~]|$)"
)
_UTF_32 = re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|\0\0\0[\t\n\r -~]|[\t\n\r -~]\0\0\0")


class _FaultFound(Exception):  # noqa: N818 - control flow within this module, not an error
    def __init__(self, byte: int, message: str, kind: FaultKind = "invalid_json") -> None:
        self.fault = Fault(kind, byte, message)


def examine(text: bytes) -> int | Fault:
    """Return the record count of `text`, or its first error.

    The count is the length of a top-level array, else 1. An early end is an error at `len(text)`. A
    number or escape beyond the limits is an error at its first byte, as is an invalid UTF-8
    sequence.
    """
    if wide := find_wide_encoding(text):
        return wide
    end, encoding = len(text), None
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        found = text[error.start : error.end].hex(" ")
        message = f"not UTF-8: byte(s) {found} ({error.reason})"
        end, encoding = error.start, Fault("encoding", error.start, message)
    try:
        count = _Scanner(text[:end]).document()
    except _FaultFound as stop:
        if stop.fault.byte < end or encoding is None:
            return stop.fault
        return encoding
    return encoding or count


def find_wide_encoding(head: bytes) -> Fault | None:
    """Return the error of a text that begins with `head` as UTF-16 or UTF-32, with mark or not."""
    name = "UTF-32" if _UTF_32.match(head) else "UTF-16" if _UTF_16.match(head) else None
    if name is None:
        return None
    return Fault("encoding", 0, f"looks like {name}; JSON must be UTF-8 (convert with iconv)")


class _Scanner:
    """One pass over one text. `at` is the offset of the next byte."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = len(BOM) if text.startswith(BOM) else 0

    def document(self) -> int:
        if self._peek() == b"":
            raise _FaultFound(self.at, "is empty: no JSON value in it", "empty")
        count = self._value()
        if found := self._peek():
            raise _FaultFound(
                self.at,
                f"unexpected {_describe_byte(found)} after the end of the value{self._hint(found)}",
            )
        return count

    def _hint(self, found: bytes) -> str:
        """Return the advice for a second value, which begins with the byte `found`."""
        if found == b"\x1e":
            return " (a JSON text sequence? then --input-format seq)"
        if found not in b"{[":
            return ""
        before = self.text[: self.at]
        value = before.rstrip(WHITE_SPACE)
        if b"\n" in before[len(value) :] and b"\n" not in value.lstrip(WHITE_SPACE):
            return " (is each line a value? then --input-format jsonl)"
        return " (do values follow each other? then --input-format concat)"

    def _peek(self) -> bytes:
        """Skip white space and return the next byte, or nothing at the end."""
        self.at = _end_of(_SPACE, self.text, self.at)
        return self.text[self.at : self.at + 1]

    def _value(self) -> int:
        """Scan one value without recursion, and return its record count."""
        closers: list[bytes] = []
        is_array = self._peek() == b"["
        elements = 0
        while True:
            if self._begins_container(closers):
                continue
            while True:  # a value has just ended
                if not closers:
                    return elements if is_array else 1
                elements += len(closers) == 1
                found = self._peek()
                if found not in (closers[-1], b","):
                    self._raise_expected(f"',' or '{closers[-1].decode()}'", found)
                self.at += 1
                if found == b",":
                    if not is_array or len(closers) > 1:
                        self._skip_sure_items(closers[-1])
                    self._after_comma(closers[-1])
                    break
                closers.pop()

    def _begins_container(self, closers: list[bytes]) -> bool:
        """Scan the start of a value. Return whether values inside it follow."""
        found = self._peek()
        if found not in (b"[", b"{"):
            self._scalar(found)
            return False
        if len(closers) == MAX_DEPTH:
            raise _FaultFound(self.at, f"nested more than {MAX_DEPTH:,} levels deep", "too_deep")
        self.at += 1
        closer = b"]" if found == b"[" else b"}"
        following = self._peek()
        if following == closer:
            self.at += 1
            return False
        closers.append(closer)
        if len(closers) > 1 or closer == b"}":
            self._skip_sure_items(closer)
        if self.text[self.at - 1 : self.at] == b",":
            self._after_comma(closer)
        elif closer == b"}":
            self._key(following)
        return True

    def _skip_sure_items(self, closer: bytes) -> None:
        """Skip items of a container whose number does not count, up to after a comma."""
        self.at = _end_of(_sure_items(closer), self.text, self.at)

    def _after_comma(self, closer: bytes) -> None:
        found = self._peek()
        if found == closer:
            raise _FaultFound(self.at, f"trailing comma before '{closer.decode()}'")
        if closer == b"}":
            self._key(found)

    def _key(self, found: bytes) -> None:
        if found != b'"':
            self._raise_expected("a key in double quotes", found)
        self._string()
        if (found := self._peek()) != b":":
            self._raise_expected("':' after the key", found)
        self.at += 1

    def _scalar(self, found: bytes) -> None:
        if found == b'"':
            self._string()
        elif found in _LITERALS:
            self._literal(_LITERALS[found])
        elif found == b"-" or found.isdigit():
            self._number()
        else:
            self._raise_expected("a value", found)

    def _literal(self, word: bytes) -> None:
        for letter in word:
            if self.text[self.at : self.at + 1] != bytes([letter]):
                self._raise_expected(f"'{word.decode()}'", self.text[self.at : self.at + 1])
            self.at += 1

    def _string(self) -> None:
        start = self.at
        end = start + 1
        while end > self.at:
            self.at, end = end, _end_of(_PLAIN, self.text, end)
        found = self.text[self.at : self.at + 1]
        if found == b'"':
            self._surrogates(start + 1, self.at)
            self.at += 1
            return
        if found == b"":
            raise _FaultFound(self.at, "ends inside a string")
        if found == b"\\":
            self._bad_escape()
        raise _FaultFound(self.at, f"{_describe_byte(found)} in a string must be escaped")

    def _bad_escape(self) -> None:
        self.at += 1
        found = self.text[self.at : self.at + 1]
        if found == b"u":
            self.at = _end_of(_HEX, self.text, self.at + 1)
            found = self.text[self.at : self.at + 1]
            if found:
                raise _FaultFound(
                    self.at, f"\\u needs four hexadecimal digits, not {_describe_byte(found)}"
                )
        if found == b"":
            raise _FaultFound(self.at, "ends inside an escape")
        raise _FaultFound(self.at, f"\\ before {_describe_byte(found)} is no JSON escape")

    def _surrogates(self, start: int, end: int) -> None:
        """Refuse half of a surrogate pair: UTF-8 cannot represent it."""
        if self.text.find(b"\\u", start, end) < 0:
            return
        high_at = high_end = -1
        for match in _ESCAPE.finditer(self.text, start, end):
            code = int(match[1], 16) if match[1] else 0
            if high_at >= 0:
                if not (0xDC00 <= code <= 0xDFFF and match.start() == high_end):
                    raise _lone_surrogate(self.text, high_at)
                high_at = -1
            elif 0xDC00 <= code <= 0xDFFF:
                raise _lone_surrogate(self.text, match.start())
            elif 0xD800 <= code <= 0xDBFF:
                high_at, high_end = match.start(), match.end()
        if high_at >= 0:
            raise _lone_surrogate(self.text, high_at)

    def _number(self) -> None:
        start = self.at
        self.at += self.text[start : start + 1] == b"-"
        if self.text[self.at : self.at + 1] == b"0":
            self.at += 1
            if self.text[self.at : self.at + 1].isdigit():
                raise _FaultFound(self.at, "a number cannot have leading zeros")
        else:
            self._digits("a digit")
        whole_end = self.at
        if self.text[self.at : self.at + 1] == b".":
            self.at += 1
            self._digits("a digit after the decimal point")
        if self.text[self.at : self.at + 1] in (b"e", b"E"):
            self.at += 1
            self.at += self.text[self.at : self.at + 1] in (b"+", b"-")
            self._digits("a digit of the exponent")
        self._check_size(start, whole_end)

    def _digits(self, expected: str) -> None:
        end = _end_of(_DIGITS, self.text, self.at)
        if end == self.at:
            self._raise_expected(expected, self.text[end : end + 1])
        self.at = end

    def _check_size(self, start: int, whole_end: int) -> None:
        if self.at == whole_end:
            size = whole_end - start
            if size > MAX_INTEGER_DIGITS:
                is_negative = self.text[start : start + 1] == b"-"
                raise _FaultFound(
                    start,
                    f"an integer of {size - is_negative:,} digits{' and a sign' * is_negative}; "
                    f"the limit is {MAX_INTEGER_DIGITS:,}",
                )
        elif math.isinf(float(self.text[start : self.at])):
            raise _FaultFound(start, "a number beyond the range of double precision")

    def _raise_expected(self, expected: str, found: bytes) -> NoReturn:
        if found == b"":
            raise _FaultFound(self.at, f"ends early: expected {expected}")
        raise _FaultFound(self.at, f"expected {expected}, found {self._describe(found)}")

    def _describe(self, found: bytes) -> str:
        hint = _HINTS.get(found, "")
        if match := _FOREIGN_WORD.match(self.text, self.at):
            word = match[0].decode()
            found_text, hint = f"'{word[:20]}'", _WORD_HINTS.get(word, "")
        else:
            found_text = _describe_byte(found)
        return f"{found_text} ({hint})" if hint else found_text


_HINTS = {
    b"'": "JSON strings take double quotes",
    b"/": "JSON has no comments",
    b"#": "JSON has no comments",
    b"+": "JSON numbers take no plus sign",
    b".": "a JSON number begins with a digit",
}
_NOT_A_NUMBER = "JSON has no NaN or Infinity; write null or a string"
_WORD_HINTS = {
    "NaN": _NOT_A_NUMBER,
    "Infinity": _NOT_A_NUMBER,
    "-Infinity": _NOT_A_NUMBER,
    "True": "JSON writes true",
    "False": "JSON writes false",
    "None": "JSON writes null",
    "undefined": "JSON writes null",
}


@cache
def _sure_items(closer: bytes) -> re.Pattern[bytes]:
    """Return a pattern for items of an object or array that are surely valid, with their commas.

    One match replaces some calls for each token, and takes half the time. Escapes, exponents and
    long numbers are left to the scanner. Not possessive as a whole, and limited, like `_PLAIN`.
    """
    number = rb"-?(?:0|[1-9][0-9]{0,99}+)(?:\.[0-9]{1,99}+)?+(?![0-9.eE])"
    string = rb'"[^"\\\x00-\x1f]*+"'
    item = rb"[ \t\n\r]*+(?:%b|%b|true|false|null)[ \t\n\r]*+," % (string, number)
    key = rb"[ \t\n\r]*+%b[ \t\n\r]*+:" % string if closer == b"}" else b""
    return re.compile(rb"(?:%b%b){0,10000}" % (key, item))


def _end_of(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    """Return the end of the match of `pattern` at `at`; it always matches."""
    match = pattern.match(text, at)
    return match.end() if match else at


def _lone_surrogate(text: bytes, at: int) -> _FaultFound:
    escape = text[at : at + 6].decode("ascii")
    return _FaultFound(at, f"{escape} is half of a surrogate pair, which is no character")


def _describe_byte(found: bytes) -> str:
    """Describe a byte for messages."""
    if found >= b"\x80":
        return "a character outside ASCII"
    if found < b" " or found == b"\x7f":
        return f"control character 0x{found[0]:02x}"
    return f"'{found.decode('ascii')}'"
