"""Records that lack what they must have: rejected, or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.codec.pointer import format_pointer
from asyncbatch.transforms import RecordError, kind_of
from asyncbatch.transforms.path import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.transforms import Position
    from asyncbatch.transforms.specs import RequireSpec


class Require:
    """Passes the records that have all of some fields: not missing, not null, not "".

    Raises ValueError if a path is none.
    """

    def __init__(self, spec: RequireSpec) -> None:
        self._fields = spec.fields
        self._drops = spec.on_missing == "drop"
        self._tokens = [parse_path(field) for field in spec.fields]
        self._gets = [make_getter(tokens) for tokens in self._tokens]

    def __call__(
        self,
        value: Any,  # noqa: ANN401 - JSON
        position: Position,  # noqa: ARG002 - part of the contract
    ) -> Iterable[Any]:
        """Return the record, or nothing if it is dropped. Raises RecordError if it is rejected."""
        if type(value) is dict:
            for get in self._gets:
                found = get(value)
                if found is None or found == "":
                    break
            else:
                return (value,)
        if self._drops:
            return ()
        raise self._rejection(value)

    def _rejection(self, value: Any) -> RecordError:  # noqa: ANN401 - JSON
        if type(value) is not dict:
            return RecordError(
                "missing_field", f"has no {self._fields[0]!r}: it is {kind_of(value)}", pointer=""
            )
        lacking = [
            at for at, get in enumerate(self._gets) if (found := get(value)) is None or found == ""
        ]
        first = lacking[0]
        state = "is empty" if self._gets[first](value) == "" else "is missing or null"
        more = [repr(self._fields[at]) for at in lacking[1:]]
        also = f"; so {'is' if len(more) == 1 else 'are'} {', '.join(more)}" if more else ""
        return RecordError(
            "missing_field",
            f"{self._fields[first]!r} {state}{also}",
            pointer=format_pointer(self._tokens[first]),
        )
