"""What jq says of a program that does not compile, for people."""

from __future__ import annotations

import re
import unicodedata

_SHOWN = 3
"""Complaints that are shown: the first is the cause, the next may help."""
_INDENT = "    "

_COMPLAINT = re.compile(
    r"jq: error: (.*?) at <top-level>, line (\d+), column (\d+):\n    (?:.*)\n    ( *)(\^+)"
)
_PLAIN_COMPLAINT = re.compile(r"jq: error: (.*)")
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
_TOKEN = re.compile("|".join(_TOKEN_NAMES))
_UNCLOSED_STRING = "expecting QQSTRING_TEXT"
# A comment ends with its line for us; where jq lets it go on, an import after it fails to compile.
_MODULE = re.compile(r"(?:\s|#[^\r\n]*)*(?:module|import|include)\b")


def begins_with_module(program: str) -> bool:
    """Tell if `program` begins with a module directive, the only place where jq takes one."""
    return _MODULE.match(program) is not None


def explain(program: str, message: str) -> str:
    """Return jq's complaints of `program`, each with its line and a caret under the place."""
    lines = program.split("\n")
    complaints = []
    for words, line, column, _, carets in _COMPLAINT.findall(message):
        complaints.append(_complaint(lines, words, int(line), int(column), len(carets)))
    if not complaints:
        found = _PLAIN_COMPLAINT.search(message)
        return f"the jq program does not compile: {found[1] if found else message}"
    shown = complaints[:_SHOWN]
    if len(complaints) > _SHOWN:
        shown.append(f"(and {len(complaints) - _SHOWN} more)")
    return "\n".join(["the jq program does not compile:", *shown])


def shortened(text: str, length: int = 500) -> str:
    """Return `text`, cut with an ellipsis if it is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _complaint(lines: list[str], words: str, line: int, column: int, width: int) -> str:
    """Return one complaint; jq's `column` and `width` count bytes of UTF-8."""
    encoded = lines[line - 1].encode()
    before = encoded[: column - 1].decode("utf-8", "replace")
    marked = encoded[column - 1 : column - 1 + width].decode("utf-8", "replace")
    if "unexpected end of file" in words and _UNCLOSED_STRING not in words:
        # jq points at the last token; what is missing stands behind it.
        before, marked = lines[line - 1].rstrip(), ""
    reason = _cleaned(words, lines[line - 1][len(before) :])
    text = lines[line - 1].rstrip("\r")
    start = max(0, len(before) - 60)
    shown = shortened(text[start:], 100)
    pad = "".join(map(_blank, before[start:]))
    caret = "^" * max(1, min(sum(map(_cells, marked)), 40))
    place = f"line {line}, column {len(before) + 1}"
    return f"{place}: {reason}\n{_INDENT}{shown}\n{_INDENT}{pad}{caret}"


def _cleaned(words: str, rest: str) -> str:
    """Return `words` without the names that jq's parser has for its tokens."""
    if _UNCLOSED_STRING in words:
        return "a string is not closed"
    words = _LABEL.sub(r"there is no label $\1 to break to", words)
    words = words.removeprefix("syntax error, ")
    words = words.replace("unexpected INVALID_CHARACTER", f"unexpected '{rest[:1]}'")
    return shortened(_TOKEN.sub(lambda token: _TOKEN_NAMES[token[0]], words), 200)


def _cells(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _blank(char: str) -> str:
    return char if char == "\t" else " " * _cells(char)
