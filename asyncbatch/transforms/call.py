"""User functions, sync and async, with retries."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from asyncbatch.core import retry as retrying
from asyncbatch.errors import UsageError, describe_error, valid_text
from asyncbatch.formats.decoder import decode, encode
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.json_values import is_json_value, to_json_value
from asyncbatch.transforms.load import load_function

if TYPE_CHECKING:
    from asyncbatch.core.records import Json
    from asyncbatch.core.retry import Retrier
    from asyncbatch.transforms.base import RecordPosition

    Function = Callable[..., Any]

# A function that fails after this many outputs is not called again.
_HELD_OUTPUTS = 1000


def copy_of(value: Json) -> Iterator[Json]:
    """Yield `value`, then new copies: a function may have changed its argument."""
    text = encode(value)
    yield value
    while True:
        yield decode(text)


def is_transient(error: BaseException) -> bool:
    """Whether another call of the function may succeed after this error."""
    cause = error.__context__  # usually the exception of the user's function
    return isinstance(error, RecordError) and cause is not None and retrying.is_transient(cause)


@contextmanager
def with_attempt_notes() -> Iterator[None]:
    """Add the number of attempts to the message of a RecordError."""
    try:
        yield
    except RecordError as error:
        error.message += retrying.attempts_note(error)
        raise


def materialized(outputs: Iterable[Json]) -> Iterable[Json]:
    """Compute up to `_HELD_OUTPUTS` outputs, nearly always all; return all outputs."""
    if isinstance(outputs, Sequence):
        return outputs
    rest = iter(outputs)
    first = list(islice(rest, _HELD_OUTPUTS))
    return first if len(first) < _HELD_OUTPUTS else chain(first, rest)


async def materialized_async(
    outputs: AsyncGenerator[Json, None],
) -> tuple[Sequence[Json], AsyncGenerator[Json, None]]:
    """Return up to `_HELD_OUTPUTS` computed outputs, and the generator of the others."""
    first: list[Any] = []
    async for item in outputs:
        first.append(item)
        if len(first) == _HELD_OUTPUTS:
            break
    return first, outputs


# Errors of an async function that reject the record. A CancelledError is not one of them.
_ASYNC_ERRORS = (Exception, SystemExit, KeyboardInterrupt)


class Call:
    """A transform that calls a function or generator function with each record.

    `function` is a function, or its location (see `load_function`). It takes the record. A second
    positional parameter gets the `Context` of the record; if that parameter has a default other
    than None, only under the name `context` or `ctx`. The function returns a record, None to drop
    it, or a list, tuple or iterator of several; None in them is skipped. With a `retrier`, the
    function is called again with the unchanged record after a transient error.
    """

    def __init__(self, function: str | Function, retrier: Retrier | None = None) -> None:
        self._function = load_function(function) if isinstance(function, str) else function
        self._with_context = takes_context(self._function)
        self._retrier = retrier or None
        # Calls the function with many records. None: the records must be processed one by one.
        self.many = None if self._with_context or self._retrier else self._many

    def _many(self, values: Sequence[Json]) -> Sequence[Json]:
        """Return the function's result for each value, or its RecordError."""
        results: list[Any] = []
        calls = map(self._function, values)
        while len(results) < len(values):
            try:
                results.extend(calls)
                if len(results) < len(values):  # `extend` takes StopIteration for the end
                    results.append(_rejection(StopIteration()))
            except BaseException as error:  # noqa: BLE001 - the user's function, as below
                results.append(_rejection(error))  # `calls` continues with the next value
        return results

    def outputs(self, result: Any) -> Iterable[Any]:
        """Return the outputs of one result of `many`. Raises RecordError."""
        if isinstance(result, RecordError):
            raise result
        return _outputs(result)

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:
        """Return the function's outputs for `value`. Raises RecordError if it fails."""
        if self._retrier is None:
            return self._called(value, position)
        values = copy_of(value)
        with with_attempt_notes():
            return self._retrier.call(
                lambda: materialized(self._called(next(values), position)), is_transient
            )

    def _called(self, value: Json, position: RecordPosition) -> Iterable[Json]:
        try:
            if self._with_context:
                result = self._function(value, position.context())
            else:
                result = self._function(value)
        except BaseException as error:  # noqa: BLE001 - the user's function may raise KeyboardInterrupt
            raise _rejection(error) from None
        if type(result) is dict and is_json_value(result):  # nearly always
            return (result,)
        return _outputs(result)


class AsyncCall:
    """The counterpart of `Call` for an `async def` function or async generator."""

    def __init__(self, function: str | Function, retrier: Retrier | None = None) -> None:
        self._function = load_function(function) if isinstance(function, str) else function
        self._with_context = takes_context(self._function)
        self._retrier = retrier or None

    async def outputs(
        self,
        value: Json,
        position: RecordPosition,
    ) -> AsyncGenerator[Json, None]:
        """Yield the function's outputs for `value`. Raises RecordError if it fails."""
        if self._retrier is None:
            first: Sequence[Any] = ()
            rest = self._called(value, position)
        else:
            values = copy_of(value)
            with with_attempt_notes():
                first, rest = await self._retrier.call_async(
                    lambda: materialized_async(self._called(next(values), position)), is_transient
                )
        async with aclosing(rest):
            for item in first:
                yield item
            async for item in rest:
                yield item

    async def _called(
        self,
        value: Json,
        position: RecordPosition,
    ) -> AsyncGenerator[Json, None]:
        try:
            if self._with_context:
                result = self._function(value, position.context())
            else:
                result = self._function(value)
            if isinstance(result, Awaitable):
                result = await result
        except _ASYNC_ERRORS as error:
            raise _rejection(error) from None
        if isinstance(result, AsyncIterator):
            async with aclosing(_yielded_values(result)) as items:
                async for item in items:
                    yield item
        else:
            for item in _outputs(result):
                yield item


def make_call(spec: str | Function, retrier: Retrier | None = None) -> Call | AsyncCall:
    """Return the transform for a function or its location. Raises UsageError."""
    function = load_function(spec) if isinstance(spec, str) else spec
    return AsyncCall(function, retrier) if is_async(function) else Call(function, retrier)


def is_async(function: Function) -> bool:
    """Whether a call of `function` returns an awaitable or an async iterator.

    Looks into partial functions, objects with an async `__call__`, and wrappers with `__wrapped__`.
    """
    while isinstance(function, functools.partial):
        function = function.func
    layers = [function]
    while hasattr(layers[-1], "__wrapped__") and len(layers) < 100:
        layers.append(layers[-1].__wrapped__)
    layers += [type(layer).__call__ for layer in layers if not inspect.isroutine(layer)]
    return any(
        inspect.iscoroutinefunction(layer) or inspect.isasyncgenfunction(layer) for layer in layers
    )


def takes_context(function: Function) -> bool:
    """Whether `function` also takes a context. Raises UsageError if it takes no record."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if named or len(required) > 2 or not (positional or takes_any):
        raise UsageError(
            f"{_name(function)}{inspect.signature(function)} cannot be called with a record, "
            "nor with a record and its context"
        )
    second = positional[1] if len(positional) > 1 else None
    return second is not None and (
        second.default in (second.empty, None) or second.name in ("context", "ctx")
    )


def _outputs(result: Any) -> Iterable[Any]:
    if result is None:
        return ()
    if isinstance(result, list | tuple):
        return [to_json_value(item) for item in result if item is not None]
    if isinstance(result, Iterator):
        return _drained(result)
    if inspect.iscoroutine(result):
        result.close()
        raise RecordError("transform", "returned a coroutine: define the function with async def")
    return (to_json_value(result),)


def _drained(results: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            item = next(results, None)
            while item is None:
                item = next(results)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001 - the user's function may raise KeyboardInterrupt
            raise _rejection(error) from None
        yield to_json_value(item)


async def _yielded_values(results: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    try:
        if inspect.isasyncgen(results):
            async with aclosing(results):
                async for item in results:
                    if item is not None:
                        yield to_json_value(item)
        else:
            async for item in results:
                if item is not None:
                    yield to_json_value(item)
    except RecordError:
        raise
    except _ASYNC_ERRORS as error:
        raise _rejection(error) from None


def _rejection(error: BaseException) -> RecordError:
    """Return the error of a function as a RecordError.

    Its `detail` is the traceback without the leading frames of this module.
    """
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    detail = "".join(traceback.format_exception(type(error), error, frames))
    return RecordError("transform", describe_error(error), detail=valid_text(detail))


def _name(function: Function) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
