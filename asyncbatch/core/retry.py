"""The retry policy: attempts with exponential backoff and jitter."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from asyncbatch.errors import AsyncbatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_DELAY_SECONDS = 60.0  # the longest delay before a retry, before jitter
_NOTE_PREFIX = "tried "
_EAI_AGAIN = -3  # EAI_AGAIN of getaddrinfo: the name server did not answer yet
# system errors that may not recur
TRANSIENT_ERRNOS = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT,
        errno.ENFILE, errno.EMFILE, errno.ENOBUFS, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED,
        errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN, errno.EPIPE,
        _EAI_AGAIN,
    }
)  # fmt: skip


class Retries(Struct, frozen=True):
    """The number of retries after a failure, and the first delay in seconds."""

    count: int = 0
    delay: float = 0.2


def is_transient(error: BaseException) -> bool:
    """Whether `error` may not recur.

    If a library's error was caused by a system error, the system error decides.
    """
    if not isinstance(error, Exception):  # a cancellation is never retried
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    cause = error.__cause__
    if isinstance(error, OSError):
        if error.errno is not None:
            return error.errno in TRANSIENT_ERRNOS
        cause = cause or error.__context__  # urllib and requests keep the system error there
    return cause is not None and is_transient(cause)


class Retrier:
    """Calls functions, retries them after transient errors, and counts the retries.

    The last error is raised, with a note of the number of attempts (see `attempts_note`). Safe for
    several threads. `sleep` takes seconds.
    """

    def __init__(self, retries: Retries, sleep: Callable[[float], None] = time.sleep) -> None:
        self.retries = retries
        self._sleep = sleep
        self._made: list[None] = []  # list.append is atomic, so that no lock is needed

    def __bool__(self) -> bool:
        """Whether any call is retried."""
        return self.retries.count > 0

    def take_retry_count(self) -> int:
        """Return the number of retries since the last call of this method."""
        count = len(self._made)
        del self._made[:count]
        return count

    def call(
        self,
        function: Callable[[], T],
        is_retryable: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        """Return the result of `function`. Raises the error of the last attempt."""
        try:
            return function()  # nearly every call succeeds here; tenacity takes 0.2 ms
        except Exception as error:
            if not self or not is_retryable(error):
                raise
            first: Exception | None = error
        from tenacity import Retrying

        def attempt() -> T:
            nonlocal first
            if first is None:
                return function()
            error, first = first, None
            raise error

        retrying = Retrying(sleep=self._sleep, **self._policy(is_retryable))
        try:
            return retrying(attempt)
        except Exception as error:
            _add_attempts_note(error, retrying.statistics)
            raise

    async def call_async(
        self,
        function: Callable[[], Awaitable[T]],
        is_retryable: Callable[[BaseException], bool] = is_transient,
        *,
        min_delay: Callable[[BaseException], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> T:
        """Return the result of an async `function`. Raises the error of the last attempt.

        `min_delay` returns the minimum delay in seconds that an error demands (such as
        Retry-After).
        """
        try:
            return await function()  # without tenacity, as in `call`
        except Exception as error:
            if not self or not is_retryable(error):
                raise
            first: Exception | None = error
        from tenacity import AsyncRetrying

        async def attempt() -> T:
            nonlocal first
            if first is None:
                return await function()
            error, first = first, None
            raise error

        policy = self._policy(is_retryable)
        if min_delay is not None:
            policy["wait"] = self._with_min_delay(policy["wait"], min_delay)
        if sleep is not None:
            policy["sleep"] = sleep
        retrying = AsyncRetrying(**policy)
        try:
            return await retrying(attempt)
        except Exception as error:
            _add_attempts_note(error, retrying.statistics)
            raise

    def _with_min_delay(
        self, backoff: Callable[[Any], float], min_delay: Callable[[BaseException], float]
    ) -> Callable[[Any], float]:
        from tenacity import wait_random

        jitter = wait_random(0, self.retries.delay)  # so that clients retry at different times

        def wait(state: Any) -> float:
            return max(backoff(state), min_delay(state.outcome.exception()) + jitter(state))

        return wait

    def _policy(self, is_retryable: Callable[[BaseException], bool]) -> dict[str, Any]:
        from tenacity import (
            retry_if_exception,
            stop_after_attempt,
            wait_exponential,
            wait_random,
        )

        delay = self.retries.delay
        return {
            "stop": stop_after_attempt(1 + self.retries.count),
            "wait": wait_exponential(delay, MAX_DELAY_SECONDS) + wait_random(0, delay),
            "retry": retry_if_exception(is_retryable),
            "before_sleep": self._note_retry,
            "reraise": True,
        }

    def _note_retry(self, state: Any) -> None:
        from asyncbatch.core.log import log_warning

        self._made.append(None)
        error, attempt = state.outcome.exception(), state.attempt_number
        delay = round(state.next_action.sleep, 3)
        log_warning(
            "retry",
            f"attempt {attempt} of {1 + self.retries.count} failed, the next one follows in "
            f"{delay:g} s: {_safe_reason(error)}",
            attempt=attempt,
            delay_s=delay,
        )


def _safe_reason(error: BaseException) -> str:
    """Return the message of an error, if it can hold no secret: errors of libraries quote URLs."""
    if isinstance(error, AsyncbatchError):
        return str(error)
    return getattr(error, "strerror", None) or type(error).__name__


def attempts_note(error: BaseException) -> str:
    """Return the note about the number of attempts, to be appended to a message."""
    notes = getattr(error, "__notes__", ())
    return "".join(f" ({note})" for note in notes if note.startswith(_NOTE_PREFIX))


def _add_attempts_note(error: BaseException, statistics: dict[str, Any]) -> None:
    attempts = statistics.get("attempt_number", 1)
    if attempts > 1:
        error.add_note(f"{_NOTE_PREFIX}{attempts} times")
