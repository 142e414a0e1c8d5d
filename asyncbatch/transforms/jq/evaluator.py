"""An evaluator of common jq programs, many times as fast as jq.

It gives exactly the outputs of the library `jq`, or none: for every error, and wherever a result is
not certain, it raises UnsureError, and the record is left to the library.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from msgspec import DecodeError, ValidationError, defstruct, field
from msgspec.json import Decoder

from asyncbatch.transforms.jq import functions
from asyncbatch.transforms.jq.functions import UnsureError, is_true
from asyncbatch.transforms.jq.parser import (
    ArrayOf,
    Binary,
    Comma,
    Condition,
    Constant,
    FunctionCall,
    Identity,
    Index,
    Interpolation,
    Iterate,
    ObjectOf,
    Pipe,
    RecordOrigin,
    Slice,
    UnsupportedError,
    parse,
    pipe_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition
    from asyncbatch.transforms.jq.parser import Node, OriginOfRecord

    Run: TypeAlias = Callable[[Any], Any]
    Path: TypeAlias = tuple[str | int, ...]

WHOLE: Final = object()  # the output that is the record itself


class Evaluator:
    """A compiled jq program. Raises UnsupportedError if it is not of the supported part.

    With `needs_check`, only the library knows whether its version of jq accepts the program.
    """

    def __init__(self, program: str) -> None:
        node, self.needs_check = parse(program)
        # The position of the current record, for programs that read its origin.
        self._current: list[RecordPosition] = []
        fields = _NeededFields()
        first = _Compiler(fields, self._current)
        first.compile(node)  # notes the fields that the program reads
        number = functions.unprinted_number if first.prints_numbers else functions.number
        self.decode = Decoder(float_hook=number).decode
        self._run_on_value = _Compiler(None, self._current).compile(node)
        self._reads_all = fields.reads_all
        if not fields.reads_all:
            # Only the fields that are read are decoded.
            struct = fields.struct()
            self._decode_fields = Decoder(struct | None, float_hook=number).decode
            self._run_on_fields = _Compiler(fields, self._current).compile(node)
            self._null = struct()
            self._reads_nothing = not fields.inner

    def __call__(self, text: bytes, position: RecordPosition) -> Iterable[Json]:
        """Return the outputs for a record, each `WHOLE` or a value.

        They must be read before the next call. Raises UnsureError, also midway if this is not a
        tuple.
        """
        self._current[:] = (position,)
        try:
            if self._reads_all:
                return self._run_on_value(self.decode(text))
            if self._reads_nothing:
                return self._run_on_fields(self._null)
            try:
                fields = self._decode_fields(text)
            except ValidationError:  # an object was expected
                return self._run_on_value(self.decode(text))
            return self._run_on_fields(self._null if fields is None else fields)
        except (DecodeError, RecursionError):
            raise UnsureError from None


class _NeededFields:
    """The fields of an object that a program reads; it may read other values than objects."""

    def __init__(self) -> None:
        self.reads_all = False
        self.inner: dict[str, _NeededFields] = {}

    def add(self, path: Path) -> None:
        """Add the value at a path."""
        fields = self
        for name in path:
            if fields.reads_all:
                return
            if isinstance(name, int):
                break
            if '"' in name or "\\" in name or not name.isprintable():  # msgspec refuses them
                break
            fields = fields.inner.setdefault(name, _NeededFields())
        fields.reads_all = True
        fields.inner.clear()

    def struct(self) -> Any:
        """Return the type of an object with these fields; each is None by default."""
        types = [
            (
                f"f{at}",
                Any if inner.reads_all else inner.struct() | None,
                field(default=None, name=name),
            )
            for at, (name, inner) in enumerate(self.inner.items())
        ]
        return defstruct("Fields", types, gc=False)

    def getter(self, path: Path) -> Run:
        """Return a function from the Struct to the value at a path, which was added."""
        fields = self
        run: Run = functions.same
        for at, name in enumerate(path):
            if fields.reads_all:
                return functions.value_at(run, path[at:])
            attribute = f"f{list(fields.inner).index(str(name))}"
            run = _attribute_of(run, attribute) if at else attrgetter(attribute)
            fields = fields.inner[str(name)]
        return run


class _Scope:
    """A part of a program with one input: a record or, without `is_record`, a value within it.

    With `fields`, the input is their Struct.
    """

    def __init__(self, fields: _NeededFields | None = None, *, is_record: bool = False) -> None:
        self.fields, self.is_record = fields, is_record
        self.passed: list[Path] = []  # the paths of values that may be part of outputs

    def pass_on(self, path: Path) -> None:
        """Note that a value may be part of an output.

        As a caller may change an output, no value may be part of it twice.
        """
        for other in self.passed:
            if all(map(_may_be_same, path, other)):
                raise UnsupportedError
        self.passed.append(path)


class _Place(NamedTuple):
    """The input of a node: the value at a path of a scope's input.

    `passes`: the value may be part of an output. `is_last`: the node's outputs are the program's.
    """

    scope: _Scope
    path: Path = ()
    passes: bool = True
    is_last: bool = False

    def below(self, name: str | int) -> _Place:
        return self._replace(path=(*self.path, name))

    def tested(self) -> _Place:
        """Return the place of a node whose outputs only decide something."""
        return self._replace(passes=False, is_last=False)

    def value(self) -> Run:
        """Return a function from the scope's input to the node's."""
        scope = self.scope
        if self.passes:
            scope.pass_on(self.path)
        if self.is_last and scope.is_record and not self.path:
            return _constant(WHOLE)
        if scope.fields is None:
            return functions.value_at(functions.same, self.path)
        scope.fields.add(self.path)
        return scope.fields.getter(self.path)


class _CompiledNode(NamedTuple):
    """A compiled node: a function from the input to one output, or to an iterable of outputs."""

    run: Run
    is_single: bool = True

    def outputs(self) -> Run:
        """Return the function to an iterable of outputs."""
        run = self.run
        return (lambda value: (run(value),)) if self.is_single else run


class _Compiler:
    """Makes a function of a program. With `fields`, it works on their Struct, and adds to them.

    `current` has the position of the record when the function runs.
    """

    def __init__(self, fields: _NeededFields | None, current: Sequence[RecordPosition]) -> None:
        self._fields, self._current = fields, current
        self.prints_numbers = False  # whether the spelling of numbers matters

    def compile(self, node: Node) -> Callable[[Any], Iterable[Json]]:
        """Return the function from a record to its outputs. Raises UnsupportedError."""
        scope = _Scope(self._fields, is_record=True)
        return self._step(node, _Place(scope, is_last=True)).outputs()

    def _step(self, node: Node, at: _Place) -> _CompiledNode:  # noqa: C901, PLR0911, PLR0912 - one case for each node
        match node:
            case Identity():
                return _CompiledNode(at.value())
            case Constant(value):
                return _CompiledNode(_constant(value))
            case RecordOrigin(name):
                return _CompiledNode(self._origin(name))
            case Index(key):
                return _CompiledNode(at.below(key).value())
            case Slice(start, stop):
                return _CompiledNode(functions.slice_of(self._input(at), slice(start, stop)))
            case Iterate(optional):
                return _CompiledNode(functions.items_of(self._input(at), optional=optional), False)
            case Pipe(stages):
                return self._pipe(stages, at)
            case Comma(left, right):
                at = at._replace(is_last=False)  # so the record itself is always the only output
                return _joined(self._step(left, at), self._step(right, at))
            case Binary("//", left, right):
                return self._alternative(left, right, at)
            case Binary():
                return self._binary(node, at.tested())
            case ObjectOf(fields):
                at = at._replace(is_last=False)
                return _CompiledNode(
                    _object_of([(name, self._one(value, at)) for name, value in fields])
                )
            case ArrayOf(items):
                return _CompiledNode(self._array(items, at._replace(is_last=False)))
            case Interpolation(parts):
                self.prints_numbers = True
                runs = [self._one(part, at.tested()) for part in parts]
                return _CompiledNode(
                    lambda value: "".join([functions.to_text(run(value)) for run in runs])
                )
            case Condition(test, then, otherwise):
                return self._condition(self._one(test, at.tested()), then, otherwise, at)
            case FunctionCall():
                return self._call(node, at)

    def _origin(self, name: OriginOfRecord) -> Run:
        current = self._current
        match name:
            case "file":
                return lambda _: current[0].file
            case "record":
                return lambda _: current[0].record
            case "line":
                return lambda _: current[0].line

    def _one(self, node: Node, at: _Place) -> Run:
        """Return the function of a node that always has one output."""
        step = self._step(node, at)
        if not step.is_single:
            raise UnsupportedError
        return step.run

    def _pipe(self, stages: Sequence[Node], at: _Place) -> _CompiledNode:
        first, rest = stages[0], stages[1:]
        if not rest:
            return self._step(first, at)
        match first:
            case Index(key):
                if not _reads(rest[0]):  # then nothing would notice that there is no such part
                    raise UnsupportedError
                return self._pipe(rest, at.below(key))
            case FunctionCall("select"):
                return self._select(first, rest, at)
        left = self._step(first, at._replace(is_last=False))
        inner = _Place(_Scope(), passes=at.passes)
        return _piped(left, self._pipe(rest, inner))

    def _input(self, at: _Place) -> Run:
        return at._replace(is_last=False).value()

    def _select(self, node: FunctionCall, rest: Sequence[Node], at: _Place) -> _CompiledNode:
        """Compile `select(f) | rest`."""
        test = self._one(node.only_argument, at.tested())
        run, is_single = self._pipe(rest or (Identity(),), at)
        if is_single:
            return _CompiledNode(lambda value: (run(value),) if is_true(test(value)) else (), False)
        return _CompiledNode(lambda value: run(value) if is_true(test(value)) else (), False)

    def _array(self, items: Node | None, at: _Place) -> Run:
        if items is None:
            return lambda _: []
        run, is_single = self._step(items, at)
        return (lambda value: [run(value)]) if is_single else (lambda value: list(run(value)))

    def _alternative(self, left: Node, right: Node, at: _Place) -> _CompiledNode:
        """Compile `left // right`."""
        (first, first_single), (second, second_single) = self._either(
            lambda: self._step(left, at._replace(is_last=False)),
            lambda: self._step(right, at),
            at.scope,
        )
        if first_single:

            def run(value: Any) -> Any:
                found = first(value)
                if is_true(found):
                    return found if second_single else (found,)
                return second(value)

            return _CompiledNode(run, second_single)
        others = _CompiledNode(second, second_single).outputs()

        def run_all(value: Any) -> Iterator[Any]:
            found = False
            for output in first(value):
                if is_true(output):
                    found = True
                    yield output
            if not found:
                yield from others(value)

        return _CompiledNode(run_all, False)

    def _condition(self, test: Run, then: Node, otherwise: Node, at: _Place) -> _CompiledNode:
        yes, no = self._either(
            lambda: self._step(then, at), lambda: self._step(otherwise, at), at.scope
        )
        is_single = yes.is_single and no.is_single
        run_yes, run_no = (yes.run, no.run) if is_single else (yes.outputs(), no.outputs())
        return _CompiledNode(
            lambda value: run_yes(value) if is_true(test(value)) else run_no(value), is_single
        )

    def _either(
        self, first: Callable[[], _CompiledNode], second: Callable[[], _CompiledNode], scope: _Scope
    ) -> tuple[_CompiledNode, _CompiledNode]:
        """Compile two nodes of which only one has outputs, so both may pass on the same value."""
        before = scope.passed
        scope.passed = before.copy()
        one, after_one = first(), scope.passed
        scope.passed = before.copy()
        other = second()
        scope.passed += after_one
        return one, other

    def _binary(self, node: Binary, at: _Place) -> _CompiledNode:
        left, right = self._one(node.left, at), self._one(node.right, at)
        match node.operator:
            case "and":
                return _CompiledNode(lambda value: is_true(left(value)) and is_true(right(value)))
            case "or":
                return _CompiledNode(lambda value: is_true(left(value)) or is_true(right(value)))
            case "==" | "!=" if isinstance(node.right, Constant):
                return _CompiledNode(
                    functions.comparison_with(left, node.right.value, node.operator)
                )
        operate = functions.OPERATORS[node.operator]
        return _CompiledNode(lambda value: operate(left(value), right(value)))

    def _call(self, node: FunctionCall, at: _Place) -> _CompiledNode:
        match node.name:
            case "select":
                return self._select(node, (), at)
            case "empty":
                return _CompiledNode(lambda _: (), False)
            case "map":
                return self._step(ArrayOf(pipe_of(Iterate(), node.only_argument)), at)
            case "first" | "last":
                return self._step(Index(0 if node.name == "first" else -1), at)
            case "tostring":
                self.prints_numbers = True
        at = at._replace(is_last=False, passes=at.passes and node.name == "to_entries")
        call, run = functions.FUNCTIONS[node.name], at.value()
        if node.argument is None:
            return _CompiledNode(lambda value: call(run(value)))
        argument = node.argument
        if not isinstance(argument, Constant):
            raise UnsupportedError
        constant = argument.value
        if type(constant) is not str and not (node.name == "has" and type(constant) is int):
            raise UnsupportedError
        return _CompiledNode(lambda value: call(run(value), constant))


def _may_be_same(one: str | int, other: str | int) -> bool:
    """Whether two steps may lead to one value: .[-1] may be .[0]."""
    if isinstance(one, int) and isinstance(other, int) and (one < 0 or other < 0):
        return True
    return one == other


def _reads(node: Node) -> bool:  # noqa: PLR0911 - one case for each node
    """Whether a node always reads its input."""
    match node:
        case Constant() | RecordOrigin() | FunctionCall("empty"):
            return False
        case Pipe(stages):
            return _reads(stages[0])
        case Comma(left, _) | Binary("//" | "and" | "or", left, _):
            return _reads(left)
        case Binary(_, left, right):
            return _reads(left) or _reads(right)
        case ObjectOf(fields):
            return any(_reads(value) for _, value in fields)
        case ArrayOf(items):
            return items is not None and _reads(items)
        case Condition(test):
            return _reads(test)
        case FunctionCall("select"):
            return _reads(node.only_argument)
        case Interpolation(parts):
            return any(map(_reads, parts))
    return True


def _joined(left: _CompiledNode, right: _CompiledNode) -> _CompiledNode:
    """Return the outputs of `left`, then those of `right`."""
    if left.is_single and right.is_single:
        first, second = left.run, right.run
        return _CompiledNode(lambda value: (first(value), second(value)), False)
    ones, others = left.outputs(), right.outputs()

    def run(value: Any) -> Iterator[Any]:
        yield from ones(value)
        yield from others(value)

    return _CompiledNode(run, False)


def _piped(left: _CompiledNode, right: _CompiledNode) -> _CompiledNode:
    """Return the outputs of `right` for each output of `left`."""
    run, follow = left.run, right.run
    if left.is_single:
        return _CompiledNode(lambda value: follow(run(value)), right.is_single)
    if right.is_single:
        return _CompiledNode(lambda value: map(follow, run(value)), False)
    return _CompiledNode(lambda value: chain.from_iterable(map(follow, run(value))), False)


def _object_of(fields: Sequence[tuple[str, Run]]) -> Run:
    return lambda value: {name: run(value) for name, run in fields}


def _constant(value: Any) -> Run:
    return lambda _: value


def _attribute_of(run: Run, name: str) -> Run:
    """Return the function to an attribute of the Struct, or None, that `run` returns."""

    def attribute(value: Any) -> Any:
        found = run(value)
        return None if found is None else getattr(found, name)

    return attribute
