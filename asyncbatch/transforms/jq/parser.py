"""A parser for the part of the jq language that `evaluator` evaluates.

It accepts no program that jq refuses, and refuses every program that it does not know.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from msgspec import Struct

OriginOfRecord: TypeAlias = Literal["file", "record", "line"]


class UnsupportedError(Exception):
    """A program is not of the part of jq that is evaluated here, or not a program at all."""


class Identity(Struct, frozen=True):
    """The input: `.`."""


class Constant(Struct, frozen=True):
    """A scalar."""

    value: str | int | float | None


class Index(Struct, frozen=True):
    """A step of a path: `.key`, `.["key"]` or `.[0]`."""

    key: str | int


class Slice(Struct, frozen=True):
    """Some elements of an array: `.[start:stop]`."""

    start: int | None
    stop: int | None


class Iterate(Struct, frozen=True):
    """All elements or values: `.[]`; `optional` with a question mark."""

    optional: bool = False


class Pipe(Struct, frozen=True):
    """A pipe `a | b | c`, or a term with its suffixes. No stage is a pipe."""

    stages: tuple[Node, ...]


class Comma(Struct, frozen=True):
    """The outputs of both: `a, b`."""

    left: Node
    right: Node


class Binary(Struct, frozen=True):
    """Two operands and an operator: `//`, `and`, `or`, a comparison or arithmetic."""

    operator: str
    left: Node
    right: Node


class ObjectOf(Struct, frozen=True):
    """An object with constant keys: `{key: value, …}`."""

    fields: tuple[tuple[str, Node], ...]


class ArrayOf(Struct, frozen=True):
    """An array: `[items]`."""

    items: Node | None


class Interpolation(Struct, frozen=True):
    r"""A string with values: `"text \(a) text"`."""

    parts: tuple[Node, ...]


class Condition(Struct, frozen=True):
    """A choice: `if test then a else b end`."""

    test: Node
    then: Node
    otherwise: Node


class RecordOrigin(Struct, frozen=True):
    """The file, the record number or the line of the record: one of `ORIGINS`."""

    field: OriginOfRecord


class FunctionCall(Struct, frozen=True):
    """A call of one of `FUNCTIONS`."""

    name: str
    argument: Node | None = None

    @property
    def only_argument(self) -> Node:
        """The argument of a function that has one."""
        if self.argument is None:
            raise UnsupportedError
        return self.argument


Node: TypeAlias = (
    Identity | Constant | Index | Slice | Iterate | Pipe | Comma | Binary | ObjectOf | ArrayOf
    | Interpolation | Condition | RecordOrigin | FunctionCall
)  # fmt: skip

# The names for the origin of a record. jq itself has the functions.
ORIGINS: Final[dict[str, OriginOfRecord]] = {
    "input_filename": "file", "input_line_number": "line", "$__file": "file", "$__record": "record",
}  # fmt: skip
# The known functions, and whether they have an argument.
FUNCTIONS = {
    **dict.fromkeys(
        (
            "ascii_downcase", "ascii_upcase", "empty", "first", "keys", "last", "length", "not",
            "to_entries", "tonumber", "tostring", "type",
        ),
        False,
    ),
    **dict.fromkeys(("endswith", "has", "map", "select", "split", "startswith"), True),
}  # fmt: skip
_CONSTANTS = {"null": None, "true": True, "false": False}
_KEYWORDS = frozenset(
    {
        "and", "as", "catch", "def", "elif", "else", "end", "foreach", "if", "import", "include",
        "label", "module", "or", "reduce", "then", "try", "__loc__",
    }
)  # fmt: skip
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
# The binary operators from the weakest to the strongest.
_LEVELS: Final = (
    frozenset({"//"}), frozenset({"or"}), frozenset({"and"}), _COMPARISONS,
    frozenset({"+", "-"}), frozenset({"*", "/"}),
)  # fmt: skip
_MAX_DEPTH = 50  # levels of a program; deeper ones are left to jq
_MAX_DIGITS = 15  # of a number: different ones of so many digits are different doubles

# The longest match counts, as in jq. An operator that is not known here ends in an error.
_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:
        (?P<field>\.[A-Za-z_][A-Za-z_0-9]*+)
      | (?P<number>(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)
      | (?P<variable>\$__(?:file|record)(?![A-Za-z_0-9:]))
      | (?P<name>[A-Za-z_][A-Za-z_0-9]*+)(?!::)
      | (?P<quote>")
      | (?P<sign>//=|[|]=|[+\-*/%]=|\.\.|\?//|//|==|!=|<=|>=|[.\[\](){}|,:?<>+\-*/])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_TEXT = re.compile(r'[^"\\\0]++')
_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip


def parse(program: str) -> tuple[Node, bool]:
    """Return the program, and whether it needs jq 1.8. Raises UnsupportedError."""
    try:
        program.encode()
    except UnicodeEncodeError:
        raise UnsupportedError from None
    parser = _Parser(program)
    node = parser.pipe()
    parser.expect("")
    return node, parser.is_recent


def pipe_of(*nodes: Node) -> Node:
    """Return nodes as one pipe."""
    stages: list[Node] = []
    for node in nodes:
        stages += node.stages if isinstance(node, Pipe) else (node,)
    # `.` changes nothing, and the steps of a path shall follow each other
    stages = [stage for stage in stages if stage != Identity()] or [Identity()]
    return stages[0] if len(stages) == 1 else Pipe(tuple(stages))


class _Parser:
    """A recursive descent parser. `kind` and `text` are those of the next token."""

    def __init__(self, program: str) -> None:
        self._program, self._end, self._depth = program, 0, 0
        self.is_recent = False
        self._kind, self._text = "", ""
        self._advance()

    def pipe(self) -> Node:
        """Parse the weakest operators: pipe and comma."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnsupportedError
        stages = [self._commas()]
        while self._skip("|"):
            stages.append(self._commas())
        self._depth -= 1
        return pipe_of(*stages)

    def expect(self, text: str) -> None:
        """Consume a sign, a keyword or (as an empty text) the end."""
        if self._kind == "quote" or self._text != text:
            raise UnsupportedError
        self._advance()

    def _advance(self) -> None:
        found = _TOKEN.match(self._program, self._end)
        if found is None:
            raise UnsupportedError
        self._kind, self._end = str(found.lastgroup), found.end()
        self._text = found[self._kind]

    def _skip(self, text: str) -> bool:
        if self._kind in ("sign", "name") and self._text == text:
            self._advance()
            return True
        return False

    def _commas(self) -> Node:
        node = self._binary(0)
        while self._skip(","):
            node = Comma(node, self._binary(0))
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._term()
        node, operators = self._binary(level + 1), _LEVELS[level]
        while self._kind in ("sign", "name") and self._text in operators:
            operator = self._text
            self._advance()
            # `//` groups to the right, comparisons do not group at all.
            right = self._binary(0 if operator == "//" else level + 1)
            node = Binary(operator, node, right)
            if operators is _COMPARISONS and self._text in _COMPARISONS:
                raise UnsupportedError
        return node

    def _term(self) -> Node:
        kind, text = self._kind, self._text
        if kind == "quote":
            return self._suffixes(self._string())
        self._advance()
        if kind == "number":
            return Constant(_number(text))
        if kind == "field":
            return self._suffixes(self._index(text[1:]))
        if kind in ("name", "variable"):
            return self._named(text)
        if text == "-" and self._kind == "number":
            number = Constant(-_number(self._text))
            self._advance()
            if self._text in ("*", "/"):
                raise UnsupportedError
            return number
        node: Node
        match text:
            case ".":
                node = self._after_dot()
            case "(":
                node = self.pipe()
                self.expect(")")
            case "[":
                node = ArrayOf(None if self._text == "]" else self.pipe())
                self.expect("]")
            case "{":
                node = self._object()
            case _:
                raise UnsupportedError
        return self._suffixes(node)

    def _named(self, name: str) -> Node:
        """Parse a constant, an origin, a condition or a call."""
        if name in _CONSTANTS:
            return Constant(_CONSTANTS[name])
        if name == "if":
            return self._condition()
        if name in ORIGINS:
            if self._text == "(":
                raise UnsupportedError
            return self._suffixes(RecordOrigin(ORIGINS[name]))
        if name not in FUNCTIONS:
            raise UnsupportedError
        if not FUNCTIONS[name]:
            node = FunctionCall(name)
            if self._text == "(":
                raise UnsupportedError
        else:
            self.expect("(")
            node = FunctionCall(name, self.pipe())
            self.expect(")")
        return self._suffixes(node)

    def _condition(self) -> Node:
        test = self.pipe()
        self.expect("then")
        then: Node = self.pipe()
        otherwise: Node = Identity()
        if self._skip("elif"):
            self._depth += 1
            return Condition(test, then, self._condition())
        if self._skip("else"):
            otherwise = self.pipe()
        self.expect("end")
        return Condition(test, then, otherwise)

    def _after_dot(self) -> Node:
        """Parse what follows a dot that is not part of a field."""
        if self._kind == "quote":
            return self._index(self._key())
        return Identity()

    def _suffixes(self, node: Node) -> Node:
        """Parse the suffixes of a term: `.a`, `."a"`, `[0]`, `[]`, `?`."""
        while True:
            if self._kind == "field":
                name = self._text[1:]
                self._advance()
                node = pipe_of(node, self._index(name))
            elif self._kind == "sign" and self._text == ".":
                self._advance()
                if self._kind != "quote":
                    raise UnsupportedError
                node = pipe_of(node, self._index(self._key()))
            elif self._skip("["):
                node = pipe_of(node, self._brackets())
            elif self._text == "?":
                raise UnsupportedError
            else:
                return node

    def _brackets(self) -> Node:
        if self._skip("]"):
            return Iterate(optional=self._optional())
        if self._kind == "quote":
            key: str | int = self._key()
            self.expect("]")
            return self._index(key)
        start = self._integer()
        if self._skip(":"):
            stop = self._integer()
            self.expect("]")
            if start is stop is None:
                raise UnsupportedError
            return Slice(start, stop)
        self.expect("]")
        if start is None:
            raise UnsupportedError
        return self._index(start)

    def _integer(self) -> int | None:
        is_negative = self._skip("-")
        if self._kind != "number":
            if is_negative:
                raise UnsupportedError
            return None
        number = _number(self._text)
        self._advance()
        if not isinstance(number, int) or number >= 2**31:
            raise UnsupportedError
        return -number if is_negative else number

    def _index(self, key: str | int) -> Index:
        # The library gets each record that lacks an optional step.
        self._optional()
        return Index(key)

    def _optional(self) -> bool:
        is_optional = False
        while self._skip("?"):
            is_optional = True
        return is_optional

    def _key(self) -> str:
        """Parse a string without interpolation."""
        node = self._string()
        if not isinstance(node, Constant):
            raise UnsupportedError
        return str(node.value)

    def _string(self) -> Node:
        r"""Parse a string, after its first quote, with `\(…)` in it."""
        parts: list[Node] = []
        text = ""
        while True:
            found = _TEXT.match(self._program, self._end)
            if found is not None:
                text += found[0]
                self._end = found.end()
            sign = self._program[self._end : self._end + 2]
            if sign[:1] == '"':
                self._end += 1
                self._advance()
                break
            self._end += 2
            if sign == "\\(":
                parts.append(Constant(text))
                text = ""
                self._advance()
                parts.append(self.pipe())
                if self._text != ")":
                    raise UnsupportedError
            elif sign[:1] == "\\" and sign[1:] in _ESCAPES:
                text += _ESCAPES[sign[1:]]
            else:
                raise UnsupportedError
        return Interpolation((*parts, Constant(text))) if parts else Constant(text)

    def _object(self) -> Node:
        fields: list[tuple[str, Node]] = []
        is_complete = self._skip("}")
        while not is_complete:
            if self._kind == "quote":
                key = self._key()
            elif self._kind == "variable":
                fields.append((self._text[1:], RecordOrigin(ORIGINS[self._text])))
                self._advance()
                is_complete = not self._skip(",")
                if is_complete:
                    self.expect("}")
                continue
            elif self._kind == "name":
                key = self._text
                is_plain = key not in _KEYWORDS and key not in _CONSTANTS
                self._advance()
                if not is_plain and self._text != ":":
                    raise UnsupportedError
            else:
                raise UnsupportedError
            fields.append((key, self._object_value() if self._skip(":") else Index(key)))
            is_complete = not self._skip(",")
            if is_complete:
                self.expect("}")
        return ObjectOf(tuple(fields))

    def _object_value(self) -> Node:
        """Parse a value. Operators need no parentheses as of jq 1.8."""
        stages: list[Node] = []
        while True:
            start = self._end, self._kind, self._text
            node = self._term()
            if self._kind in ("sign", "name") and any(self._text in level for level in _LEVELS):
                self.is_recent = True
                self._end, self._kind, self._text = start
                node = self._binary(0)
            stages.append(node)
            if not self._skip("|"):
                return pipe_of(*stages)


def _number(text: str) -> int | float:
    if not re.fullmatch(rf"0|[1-9][0-9]{{0,{_MAX_DIGITS - 1}}}|[0-9]+\.[0-9]+", text):
        raise UnsupportedError
    if "." not in text:
        return int(text)
    number = float(text)
    # jq remembers that 1.0 was written with a point, and prints it so.
    if len(text) > _MAX_DIGITS or number.is_integer():
        raise UnsupportedError
    return number
