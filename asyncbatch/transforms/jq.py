"""The transform `jq`, and messages for errors in jq programs."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.transforms.base import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition

_SHOWN = 3  # errors that a message shows: the first is the cause, the next may help
_INDENT = "    "

_JQ_ERROR = re.compile(
    r"jq: error: (.*?) at <top-level>, line (\d+), column (\d+):\n    (?:.*)\n    ( *)(\^+)"
)
_JQ_ERROR_WITHOUT_POSITION = re.compile(r"jq: error: (.*)")
_LABEL = re.compile(r"\$\*label-(\w+) is not defined")
_TOKEN_NAMES = {
    "end of file": "end of the program",
    "BINDING": "$variable",
    "IDENT": "name",
    "FIELD": ".field",
    "LITERAL": "number",
    "FORMAT": "@format",
    "KEYWORD": "keyword",
    "QQSTRING_START": "string",
    "QQSTRING_END": "end of string",
}
_TOKEN_NAME = re.compile("|".join(_TOKEN_NAMES))
_UNCLOSED_STRING = "expecting QQSTRING_TEXT"
# Here a comment ends with its line. jq may continue a comment on the next line; an import after it
# then fails to compile.
_MODULE = re.compile(r"(?:\s|#[^\r\n]*)*(?:module|import|include)\b")


def begins_with_module(program: str) -> bool:
    """Whether `program` begins with a module directive; jq accepts it only there."""
    return _MODULE.match(program) is not None


def explain(program: str, message: str) -> str:
    """Return the message for jq's errors in `program`, with lines and carets."""
    lines = program.split("\n")
    errors = []
    for words, line, column, _, carets in _JQ_ERROR.findall(message):
        errors.append(_jq_error(lines, words, int(line), int(column), len(carets)))
    if not errors:
        found = _JQ_ERROR_WITHOUT_POSITION.search(message)
        return f"the jq program does not compile: {found[1] if found else message}"
    shown = errors[:_SHOWN]
    if len(errors) > _SHOWN:
        shown.append(f"(and {len(errors) - _SHOWN} more)")
    return "\n".join(["the jq program does not compile:", *shown])


def shortened(text: str, length: int = 500) -> str:
    """Return `text`, cut with an ellipsis if it is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _jq_error(lines: list[str], words: str, line: int, column: int, width: int) -> str:
    """Return the message for one error. `column` and `width` count bytes of UTF-8."""
    encoded = lines[line - 1].encode()
    before = encoded[: column - 1].decode("utf-8", "replace")
    marked = encoded[column - 1 : column - 1 + width].decode("utf-8", "replace")
    if "unexpected end of file" in words and _UNCLOSED_STRING not in words:
        # jq points at the last token, but the missing one belongs after it.
        before, marked = lines[line - 1].rstrip(), ""
    reason = _cleaned(words, lines[line - 1][len(before) :])
    text = lines[line - 1].rstrip("\r")
    start = max(0, len(before) - 60)
    shown = shortened(text[start:], 100)
    pad = "".join(map(_blank, before[start:]))
    caret = "^" * max(1, min(sum(map(_width, marked)), 40))
    place = f"line {line}, column {len(before) + 1}"
    return f"{place}: {reason}\n{_INDENT}{shown}\n{_INDENT}{pad}{caret}"


def _cleaned(words: str, rest: str) -> str:
    """Replace the token names of jq's parser in a message by words that users know."""
    if _UNCLOSED_STRING in words:
        return "a string is not closed"
    words = _LABEL.sub(r"there is no label $\1 to break to", words)
    words = words.removeprefix("syntax error, ")
    words = words.replace("unexpected INVALID_CHARACTER", f"unexpected '{rest[:1]}'")
    return shortened(_TOKEN_NAME.sub(lambda token: _TOKEN_NAMES[token[0]], words), 200)


def _width(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _blank(char: str) -> str:
    return char if char == "\t" else " " * _width(char)


_LARGEST_EXACT = 2**53  # above it, a double cannot hold every integer; jq has only doubles
_SAME_DIGITS = bytes(ord("0") if chr(code).isdigit() else code for code in range(128)) + bytes(128)
_LONG_RUN = b"0" * 16
_DIGITS = re.compile(rb"[0-9]++")
# the bytes before and after an integer within a JSON text
_BEFORE_INTEGER, _AFTER_INTEGER = b"[,:- \t\r\n", b"],} \t\r\n"
# Matches whole strings and whole numbers (++ and *+ never backtrack), never digits inside them.
_TOKEN = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|-?[0-9]++(\.[0-9]++|[eE])?+[-+0-9eE]*+', re.DOTALL
)  # group 1: present if the number is not an integer

_NO_MORE_INPUT = "the program gets one record at a time: there is no further input"
_UNAVAILABLE = {
    "input": _NO_MORE_INPUT,
    "inputs": _NO_MORE_INPUT,
    "input_filename": "input_filename is not known here",
    "input_line_number": "input_line_number is not known here",
    "modulemeta": "modules are not available here",
    "halt": "halt cannot stop a run of many records; 'empty' drops one",
}
_GUARDS = {name: f"def {name}: error({json.dumps(why)});" for name, why in _UNAVAILABLE.items()}
_GUARDS["halt_error"] = "def halt_error: error; def halt_error(exit_code): error;"
_INT64 = 2**63
_NO_ENVIRONMENT = "def env: {}; {} as $ENV |"


class Jq:
    """A transform that runs a jq program on the JSON text of each record.

    A record without output is dropped. With `env`, the program sees the environment. Without
    `lossy`, a record with an integer beyond 2^53 is rejected, because jq would round it. Functions
    that need a whole run of the jq command (`input`, `halt`) are errors that the program can catch.
    """

    def __init__(self, program: str, *, env: bool = False, lossy: bool = False) -> None:
        allow_deep_nesting()
        compiled = _compile(program, env=env)
        self._run = compiled.input_text
        self._lossy = lossy

    def __call__(
        self,
        value: bytes | memoryview | msgspec.Raw | str,
        position: RecordPosition,  # noqa: ARG002 - a parameter of `Transform`
    ) -> Iterator[Json]:
        """Yield the program's outputs one by one. Raises RecordError if it fails."""
        if self._lossy:
            text = value if isinstance(value, str) else str(value, "utf-8")
        else:
            data = value.encode() if isinstance(value, str) else bytes(value)
            if _LONG_RUN in (alike := data.translate(_SAME_DIGITS)) and _may_round(data, alike):
                _check_integers(data)
            text = data.decode()
        try:
            # After an error, no further output may be requested: the loop ends.
            for output in self._run(text):
                yield output if _is_exact(output) else _with_floats(output)
        except ValueError as error:
            raise RecordError("transform", f"jq: {shortened(str(error))}") from None
        except RecursionError:
            raise RecordError("transform", "jq: the output is nested too deeply") from None


def _is_exact(value: Json) -> bool:
    """Whether `value` has no integer beyond 64 bits."""
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind is not int or -_INT64 <= value < _INT64
    for item in value:
        kind = type(item)
        if kind is dict or kind is list:
            if not _is_exact(item):
                return False
        elif kind is int and not -_INT64 <= item < _INT64:
            return False
    return True


def _with_floats(value: Json) -> Json:
    """Return `value` with integers beyond 64 bits as floats.

    jq's numbers are doubles, but the library returns each whole double as an integer, even 1e300.
    """
    if isinstance(value, dict):
        return {name: _with_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return float(value) if type(value) is int and not _is_exact(value) else value


def _compile(program: str, *, env: bool) -> Any:
    """Return the compiled program. Raises UsageError with line and column."""
    import jq as library

    if "\0" in program or not program.isascii():
        _check_text(program)
    if begins_with_module(program):
        raise UsageError(
            "a jq program cannot import modules here: put their definitions into the program"
        )
    try:
        library.compile(
            program
        )  # without guards, so that lines and columns in its message are the user's
    except ValueError as error:
        raise UsageError(explain(program, str(error))) from None
    # The program compiles by itself, so it cannot combine with the guards before it.
    guards = [guard for name, guard in _GUARDS.items() if name in program]
    if not env:
        guards.append(_NO_ENVIRONMENT)
    try:
        return library.compile(" ".join([*guards, program]))
    except ValueError as error:
        raise UsageError(explain(program, str(error))) from None


def _check_text(program: str) -> None:
    try:
        program.encode()
    except UnicodeEncodeError:
        raise UsageError("the jq program is not UTF-8") from None
    if "\0" in program:
        raise UsageError("the jq program contains a NUL character")


def _may_round(text: bytes, alike: bytes) -> bool:
    """Whether `text` may contain an integer of 16 digits or more.

    `alike` is `text` with each digit replaced by 0. Digits between spaces in a string count, too:
    `_check_integers` is exact, but slower.
    """
    start = alike.find(_LONG_RUN)
    while start >= 0:
        run = _DIGITS.match(alike, start)
        end = run.end() if run else start
        if (
            text[max(0, start - 1) : start] in _BEFORE_INTEGER
            and text[end : end + 1] in _AFTER_INTEGER
        ):
            return True
        start = alike.find(_LONG_RUN, end)
    return False


def _check_integers(text: bytes) -> None:
    """Raise RecordError for the first integer of a JSON text that jq would round."""
    for token in _TOKEN.finditer(text):
        number = token[0]
        if len(number) < 16 or number[:1] == b'"' or token[1] or b"e" in number.lower():
            continue
        if abs(int(number)) > _LARGEST_EXACT:
            raise RecordError(
                "transform",
                f"jq: the integer {shortened(number.decode(), 40)} is beyond 2^53, so jq would "
                "round it (--jq-lossy allows this)",
            )
