"""What it takes to call a user's function again for the same record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from asyncbatch import retrying
from asyncbatch.codec.decode import decode
from asyncbatch.codec.encode import encode
from asyncbatch.transforms import RecordError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_HELD_OUTPUTS = 1000
"""A function may fail, and be called again, while it has yielded fewer values than that."""


def copies(value: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    """Yield `value`, and then copies of what it was: a function may change what it is given."""
    text = encode(value)
    yield value
    while True:
        yield decode(text)


def is_transient(error: BaseException) -> bool:
    """Whether it is worth it to call a function again that was a reason to reject a record."""
    cause = error.__context__  # what was raised when it was: it is never raised bare
    return isinstance(error, RecordError) and cause is not None and retrying.is_transient(cause)


@contextmanager
def telling_tries() -> Iterator[None]:
    """Say in a RecordError's message how many times the function was called."""
    try:
        yield
    except RecordError as error:
        error.message += retrying.tried(error)
        raise


def begun(outputs: Iterable[Any]) -> Iterable[Any]:
    """Return `outputs`, of which the first, and nearly always all, are there."""
    if isinstance(outputs, Sequence):
        return outputs
    rest = iter(outputs)
    first = list(islice(rest, _HELD_OUTPUTS))
    return first if len(first) < _HELD_OUTPUTS else chain(first, rest)


async def begun_async(
    outputs: AsyncGenerator[Any, None],
) -> tuple[Sequence[Any], AsyncGenerator[Any, None]]:
    """Return the first `outputs`, and where the rest comes from."""
    first: list[Any] = []
    async for item in outputs:
        first.append(item)
        if len(first) == _HELD_OUTPUTS:
            break
    return first, outputs
