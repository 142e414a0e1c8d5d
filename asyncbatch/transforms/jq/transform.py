"""The transform `jq`, and messages for errors in jq programs."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import allow_deep_nesting, decode, encode
from asyncbatch.formats.grammar import MAX_INTEGER_DIGITS
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.jq.evaluator import WHOLE, Evaluator
from asyncbatch.transforms.jq.functions import UnsureError
from asyncbatch.transforms.jq.integers import (
    MARK_COMPUTED,
    AmbiguousIntegerError,
    check_record,
    has_large,
    may_shorten,
    with_digits,
    with_floats,
)
from asyncbatch.transforms.jq.parser import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


_NO_MORE_INPUT = "the program gets one record at a time: there is no further input"
_UNAVAILABLE = {
    "input": _NO_MORE_INPUT,
    "inputs": _NO_MORE_INPUT,
    "modulemeta": "modules are not available here",
    "halt": "halt cannot stop a run of many records; 'empty' drops one",
}
_GUARDS = {name: f"def {name}: error({json.dumps(why)});" for name, why in _UNAVAILABLE.items()}
_GUARDS["halt_error"] = "def halt_error: error; def halt_error(exit_code): error;"
_INT64 = 2**63 - 1
_TOO_LARGE = (
    "jq: a number of the output is beyond double precision, "
    f"or an integer of more than {MAX_INTEGER_DIGITS:,} digits"
)
# The names for the origin of a record. They get it with the record: see `_with_origin`.
_ORIGIN_VARIABLES = ("__file", "__record")
_ORIGIN_NAMES = ("input_filename", "input_line_number", *map("${}".format, _ORIGIN_VARIABLES))
_ORIGIN = (
    ". as [$__file, $__record, $__line, $__value] | $__value | "
    "def input_filename: $__file; def input_line_number: $__line;"
)
_NO_ENVIRONMENT = "def env: {}; {} as $ENV |"


class Jq:
    """A transform that runs a jq program on the JSON text of each record.

    A record without output is dropped. With `env`, the program sees the environment. Without
    `lossy`, a record with an integer beyond 2^53 is rejected, because a program may round it; those
    of an output keep their digits, or the record is rejected. With `piped`, the record is an output
    of another program, and the two are like one program. Functions that need a whole run of the jq
    command (`input`, `halt`) are errors that the program can catch.

    A common program is evaluated by `Evaluator`; the library gets the records that it leaves.
    """

    def __init__(
        self, program: str, *, env: bool = False, lossy: bool = False, piped: bool = False
    ) -> None:
        allow_deep_nesting()
        self._program, self._env = program, env
        # Whether an output that is the record itself is the given text instead of a value.
        self.returns_text = False
        # The program with a number of filters: slower, and compiled only if needed.
        self._runs: dict[int, Any] = {}
        self._reads_origin = _reads_origin(program)
        self._lossy, self._checks_records = lossy, not (lossy or piped)
        self._needs_texts = False  # whether the last record did: the next one likely does, too
        try:
            self._evaluator: Evaluator | None = Evaluator(program)
        except UnsupportedError:
            self._evaluator = None
        if self._evaluator is None or self._evaluator.needs_check:
            self._runs[0] = _compile(program, env=env).input_text

    def __call__(
        self,
        value: bytes | memoryview | msgspec.Raw | str,
        position: RecordPosition,
    ) -> Iterable[Any]:
        """Return the program's outputs, often one by one. Raises RecordError if it fails."""
        evaluator = self._evaluator
        if evaluator is None:
            return self._by_library(value, position)
        text = value.encode() if isinstance(value, str) else bytes(value)
        try:
            check_record(text)  # as only the library calculates with such an integer
            outputs = evaluator(text, position)
            if type(outputs) is not tuple:
                return self._one_by_one(evaluator, outputs, value, text, position)
            if outputs and outputs[0] is WHOLE:
                return (self._record(evaluator, value, text),)
        except (UnsureError, RecordError):
            return self._by_library(value, position)
        return outputs

    def _one_by_one(
        self,
        evaluator: Evaluator,
        outputs: Iterable[Json],
        value: Any,
        text: bytes,
        position: RecordPosition,
    ) -> Iterator[Any]:
        """Yield the outputs of the evaluator; from an unsure one on, those of the library."""
        count = 0
        try:
            for output in outputs:
                yield output if output is not WHOLE else self._record(evaluator, value, text)
                count += 1
        except UnsureError:
            yield from islice(self._by_library(value, position), count, None)

    def _record(self, evaluator: Evaluator, value: Any, text: bytes) -> Any:
        """Return the record as an output. Raises UnsureError."""
        if self.returns_text and not may_shorten(text):
            return value
        record = evaluator.decode(text)
        return value if self.returns_text else record

    def _by_library(
        self, value: bytes | memoryview | msgspec.Raw | str, position: RecordPosition
    ) -> Iterator[Json]:
        """Yield the library's outputs one by one. Raises RecordError."""
        if self._checks_records:
            data = value.encode() if isinstance(value, str) else bytes(value)
            check_record(data)
            text = data.decode()
        else:
            text = value if isinstance(value, str) else str(value, "utf-8")
        if self._reads_origin:
            text = _with_origin(text, position)
        try:
            # After an error, no further output may be requested: the loops end.
            if self._lossy:
                for output in self._compiled()(text):
                    yield with_floats(output) if has_large(output, _INT64) else output
            elif self._needs_texts:
                yield from self._exact_outputs(text)
            else:
                for number, output in enumerate(self._compiled()(text)):
                    if has_large(output):
                        yield from self._exact_outputs(text, number)
                        break
                    yield output
        except msgspec.DecodeError:
            raise RecordError("transform", _TOO_LARGE) from None
        except ValueError as error:
            raise RecordError("transform", f"jq: {shortened(str(error))}") from None
        except RecursionError:
            raise RecordError("transform", "jq: the output is nested too deeply") from None

    def _compiled(self) -> Any:
        """Return the library's function from a text to outputs."""
        run = self._runs.get(0)
        if run is None:
            run = self._runs[0] = _compile(self._program, env=self._env).input_text
        return run

    def _exact_outputs(self, text: str, start: int = 0) -> Iterator[Json]:
        """Yield the outputs from number `start`, with the digits that jq prints."""
        self._needs_texts = False
        filters = ["tojson"]
        while True:
            try:
                for number, (value, *texts) in enumerate(self._with_filters(text, filters)):
                    if number < start:
                        continue
                    if has_large(value):
                        self._needs_texts = True
                        value = with_digits(value, *map(decode, texts))  # noqa: PLW2901 - the same output
                    yield value
                    start = number + 1
            except AmbiguousIntegerError:
                filters.append(MARK_COMPUTED)
            else:
                return

    def _with_filters(self, text: str, filters: Sequence[str]) -> Iterator[tuple[Json, ...]]:
        """Yield each output and the results of the filters."""
        run = self._runs.get(len(filters))
        if run is None:
            # Two line ends: jq may continue a comment on the next line.
            program = f"({self._program}\n\n) | ., {', '.join(f'({one})' for one in filters)}"
            run = _guarded(program, self._program, env=self._env).input_text
            self._runs[len(filters)] = run
        results = iter(run(text))
        for value in results:
            yield (value, *(next(results) for _ in filters))


def _compile(program: str, *, env: bool) -> Any:
    """Return the compiled program. Raises UsageError with line and column."""
    import jq as library

    if "\0" in program or not program.isascii():
        _check_text(program)
    if begins_with_module(program):
        raise UsageError(
            "a jq program cannot import modules here: put their definitions into the program"
        )
    variables = dict.fromkeys(_ORIGIN_VARIABLES) if _reads_origin(program) else None
    try:
        # without guards, so that lines and columns in its message are the user's
        library.compile(program, args=variables)
    except ValueError as error:
        raise UsageError(explain(program, str(error))) from None
    return _guarded(program, program, env=env)


def _guarded(program: str, users: str, *, env: bool) -> Any:
    """Return `program`, of which `users` is the user's part, compiled with guards."""
    import jq as library

    # The program compiles by itself, so it cannot combine with the guards before it.
    guards = [guard for name, guard in _GUARDS.items() if name in users]
    if not env:
        guards.append(_NO_ENVIRONMENT)
    if _reads_origin(users):
        guards.append(_ORIGIN)
    try:
        return library.compile(" ".join([*guards, program]))
    except ValueError as error:
        raise UsageError(explain(program, str(error))) from None


def _reads_origin(program: str) -> bool:
    """Whether a program may read the origin of its record; in doubt, True."""
    return any(name in program for name in _ORIGIN_NAMES)


def _with_origin(text: str, position: RecordPosition) -> str:
    """Return the input of a program that reads the origin of its record: see `_ORIGIN`."""
    origin = encode((position.file, position.record, position.line)).decode()
    return f"{origin[:-1]},{text}]"


def _check_text(program: str) -> None:
    try:
        program.encode()
    except UnicodeEncodeError:
        raise UsageError("the jq program is not UTF-8") from None
    if "\0" in program:
        raise UsageError("the jq program contains a NUL character")
