"""A chain of transforms, built from their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import encode
from asyncbatch.transforms.base import MissingName, RecordError, kind_of
from asyncbatch.transforms.spec import CallSpec, FieldsSpec, FunctionSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.core.retry import Retrier
    from asyncbatch.transforms.base import RecordPosition, Transform
    from asyncbatch.transforms.call import AsyncCall
    from asyncbatch.transforms.spec import TransformSpec


class Chain:
    """Several transforms as one. Outputs are computed only when they are iterated.

    The attributes `test`, `takes` and `many` are shortcuts; each is None if it does not apply.
    """

    def __init__(
        self, stages: Sequence[Transform], *, reads_text: bool, may_keep: bool = False
    ) -> None:
        self.reads_text = reads_text  # the chain takes the text of a record, not its value
        self.may_keep = may_keep  # an output may be the record itself, which keeps its text then
        # For a single schema: whether a record passes.
        self.test: Callable[[Any], bool] | None = None
        # For a single check of rows or fields: whether all of these values can be rows.
        self.takes: Callable[[Sequence[Any]], bool] | None = None
        if len(stages) == 1:
            self.test = getattr(stages[0], "is_valid", None)
            self.takes = getattr(stages[0], "takes", None)
        # For a single function, followed by row checks without a key at most: its results for many
        # records. `rest` turns each result into outputs.
        self.many: Callable[[Sequence[Any]], Sequence[Any]] | None = None
        if all(isinstance(stage, RowCheck) and not stage.key for stage in stages[1:]):
            self.many = getattr(stages[0], "many", None)
        self._first: Any = stages[0]
        self._rest = stages[1:]

    def return_texts(self) -> None:
        """Let a jq program without further stages return a record as its text, if it can."""
        if not self._rest and hasattr(self._first, "returns_text"):
            self._first.returns_text = True

    def __call__(self, record: Json, position: RecordPosition) -> Iterable[Json]:
        """Return the outputs for `record`. Raises RecordError, possibly during iteration."""
        outputs: Iterable[Any] = self._first(record, position)
        return self._through(outputs, position) if self._rest else outputs

    def rest(self, result: Any, position: RecordPosition) -> Iterable[Any]:
        """Return the outputs for one result of `many`. Raises RecordError like `__call__`."""
        return self._through(self._first.outputs(result), position)

    def _through(self, outputs: Iterable[Json], position: RecordPosition) -> Iterable[Json]:
        for stage in self._rest:
            if type(outputs) is tuple and len(outputs) == 1:  # nearly always
                outputs = stage(outputs[0], position)
            else:
                outputs = _each(stage, outputs, position)
        return outputs


def make_stages(
    specs: Sequence[TransformSpec],
    retrier: Retrier | None = None,
    row_check: Transform | None = None,
) -> list[Transform | AsyncCall]:
    """Return the transforms of `specs` in order, then `row_check`. Raises UsageError."""
    stages: list[Transform | AsyncCall] = []
    before: TransformSpec | None = None
    for spec in specs:
        stage = make_stage(spec, retrier, before)
        stages.append(_Encoded(stage) if stages and isinstance(spec, JqSpec) else stage)  # type: ignore[arg-type]  # jq is not async
        before = spec
    if row_check is not None:
        stages.append(row_check)
    return stages


def is_async(stages: Sequence[Transform | AsyncCall]) -> bool:
    """Whether a stage must be awaited."""
    if not stages:
        return False
    from asyncbatch.transforms.call import AsyncCall

    return any(isinstance(stage, AsyncCall) for stage in stages)


def make_stage(
    spec: TransformSpec, retrier: Retrier | None = None, before: TransformSpec | None = None
) -> Transform | AsyncCall:
    """Return the transform of `spec`, which follows `before`. Raises UsageError.

    A jq program after another one is part of a pipe: the first has checked or made the integers.
    """
    match spec:  # each module is loaded only if its transform is used
        case JqSpec():
            from asyncbatch.transforms.jq.transform import Jq

            piped = isinstance(before, JqSpec)
            return Jq(spec.program, env=spec.env, lossy=spec.lossy, piped=piped)
        case CallSpec() | FunctionSpec():
            from asyncbatch.transforms.call import make_call

            return make_call(spec.function, retrier)
        case FieldsSpec():
            from asyncbatch.transforms.fields import Fields

            return Fields(spec)
        case RequireSpec():
            from asyncbatch.transforms.fields import Require

            return Require(spec)
        case _:
            from asyncbatch.transforms.schema import SchemaCheck

            return SchemaCheck(spec)


def make_chain(
    specs: Sequence[TransformSpec],
    retrier: Retrier | None = None,
    row_check: Transform | None = None,
) -> Chain | None:
    """Return the transforms as a chain, None without transforms. Raises UsageError.

    No transform may be async.
    """
    return chain_of(make_stages(specs, retrier, row_check), specs)


def chain_of(
    stages: Sequence[Transform | AsyncCall], specs: Sequence[TransformSpec]
) -> Chain | None:
    """Return the stages of `specs` as a chain, or None without stages."""
    if not stages:
        return None
    # A function may have changed the record that it returns, and `fields` makes a new one.
    may_keep = not any(isinstance(spec, CallSpec | FunctionSpec | FieldsSpec) for spec in specs)
    return Chain(stages, reads_text=reads_text(specs), may_keep=may_keep)  # type: ignore[arg-type]  # no stage is async


def reads_text(specs: Sequence[TransformSpec]) -> bool:
    """Whether the first transform takes the text of a record instead of its value."""
    return isinstance(next(iter(specs), None), JqSpec)


def _each(stage: Transform, values: Iterable[Json], position: RecordPosition) -> Iterator[Json]:
    for value in values:
        yield from stage(value, position)


class _Encoded:
    """An adapter that gives the JSON text of a value to a transform that takes text."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:
        return self._transform(encode(value), position)


class RowCheck:
    """A check that a value can be a table row: an object with all key fields.

    It has no field of the name of an `own` column, which the sink sets.
    """

    key: Sequence[str]

    def __init__(
        self, table_name: str, key: Sequence[str], own: frozenset[str] = frozenset()
    ) -> None:
        self.key, self._own = key, own
        self._name = table_name

    def takes(self, values: Sequence[Json]) -> bool:
        """Whether all of these values can be rows."""
        if not set(map(type, values)) <= {dict}:
            return False
        if self._own and not all(map(self._own.isdisjoint, values)):
            return False
        return not any(None in [value.get(field) for value in values] for field in self.key)

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:  # noqa: ARG002
        if type(value) is not dict:
            raise RecordError(
                "sink", f"a row of {self._name} must be an object, not {kind_of(value)}"
            )
        for field in sorted(self._own.intersection(value)):
            raise RecordError(
                "sink",
                f"the record has a field {field!r}, which --mode mirror sets itself: rename it with"
                " --jq",
            )
        for field in self.key:
            if value.get(field) is None:
                subject = f"no record has a value for the key field {field!r}"
                raise RecordError(
                    "missing_field",
                    f"the key field {field!r} is missing or null",
                    missing=MissingName(subject, field, value),
                )
        return (value,)
