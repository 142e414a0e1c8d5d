"""New records, field by field, of what is somewhere in the old ones."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from time import time_ns
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.transforms import RecordError, kind_of
from asyncbatch.transforms.apply import make_apply, utc_text
from asyncbatch.transforms.path import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.transforms import Position
    from asyncbatch.transforms.apply import Apply
    from asyncbatch.transforms.specs import FieldRule, FieldsSpec, Function

    Make = Callable[[dict[str, Any]], Any]

_LONGEST = 60
"""Characters of a value that a message shows."""
_CANNOT = (ValueError, TypeError, OverflowError)
"""What functions raise."""
_EXPLAIN = ("int", "float", "json")
"""Functions whose own words say more than that they cannot."""


class Fields:
    """Makes an object of each object, with these fields and no others; `clock` is `time_ns`.

    Raises ValueError if a path is none.
    """

    def __init__(self, spec: FieldsSpec, clock: Callable[[], int] = time_ns) -> None:
        self._makes = [(name, _make(name, rule, clock)) for name, rule in spec.fields]

    def __call__(
        self,
        value: Any,  # noqa: ANN401 - JSON
        position: Position,  # noqa: ARG002 - part of the contract
    ) -> tuple[Any]:
        """Return the new record. Raises RecordError where a function cannot do its work."""
        if type(value) is not dict:
            raise RecordError("transform", f"fields are made of an object, not {kind_of(value)}")
        return ({name: make(value) for name, make in self._makes},)


def _make(name: str, rule: FieldRule, clock: Callable[[], int]) -> Make:
    if rule.source is not None:
        return _make_of_source(name, rule, rule.source)
    if rule.now:
        return _make_now(clock)
    return _constant(rule.value)


def _make_now(clock: Callable[[], int]) -> Make:
    second, text = -1, ""

    def now(_: dict[str, Any]) -> str:
        """Return the time in UTC; what is before the point is made once a second."""
        nonlocal second, text
        at, rest = divmod(clock(), 1_000_000_000)
        if at != second:
            second, text = at, utc_text(datetime.fromtimestamp(at, UTC))[:-1]
        return f"{text}.{rest // 1000:06}Z"

    return now


def _constant(value: Any) -> Make:  # noqa: ANN401 - JSON
    if isinstance(value, dict | list):
        return lambda _: deepcopy(value)  # what comes after may change a record's own
    return lambda _: value


def _make_of_source(name: str, rule: FieldRule, source: str) -> Make:
    tokens = parse_path(source)
    get = make_getter(tokens)
    default = None if rule.default is None else _constant(rule.default)
    functions = [make_apply(function) for function in rule.apply]
    if not functions and default is None:
        return get
    only = functions[0] if len(functions) == 1 else None

    def make(record: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        value = get(record)
        if value is None:
            return default(record) if default else None
        try:
            if only is not None:
                return only(value)
            for function in functions:
                value = function(value)
        except _CANNOT:
            raise _refusal(name, source, rule.apply, functions, get(record)) from None
        return value

    return make


def _refusal(
    name: str,
    source: str,
    names: Sequence[Function],
    functions: Sequence[Apply],
    value: Any,  # noqa: ANN401 - JSON
) -> RecordError:
    """Return why a field cannot be made of `value`: which function, of what, and its reason."""
    reason = ""
    for function_name, function in zip(names, functions, strict=True):
        try:
            value = function(value)
        except _CANNOT as error:
            if type(error) is ValueError and str(error) and function_name in _EXPLAIN:
                reason = f": {error}"
            break
    shown = encode(value).decode()
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}…"
    origin = "" if source == name else f" (from {source})"
    return RecordError(
        "transform", f"field {name!r}{origin}: {function_name} cannot take {shown}{reason}"
    )
