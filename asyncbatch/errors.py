"""Exceptions that a caller may catch.

Bad files and bad records are data (see `core.records.Failure`); an exception means that
the job itself cannot start or continue::

    AsyncbatchError
    ├── UsageError        the job is invalid or contradicts itself
    │   ├── NothingMatchedError    no input file was found
    │   ├── TargetBusyError        another process holds the target
    │   ├── OutputClashError       an output is another output, or an input
    │   └── PipelineFileError      a pipeline or configuration file has mistakes
    ├── LockHeldError          another process holds the lock
    ├── HttpError         a URL could not be read (in `asyncbatch.http`)
    ├── SinkError         the target was lost midway
    ├── NoWorkerError     worker processes die before they begin to work
    └── WorkerBugError         a worker raised: a defect of asyncbatch, not of the input
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncbatchError(Exception):
    """The base class of all exceptions that asyncbatch raises on purpose."""


class UsageError(AsyncbatchError):
    """The job is invalid or contradicts itself; the message says what to change."""


class NothingMatchedError(UsageError):
    """No input file was found."""


class TargetBusyError(UsageError):
    """Another process holds the target; trying again may help."""


class OutputClashError(UsageError):
    """An output is another output, or an input, so that not even a report may be written there."""


class PipelineFileError(UsageError):
    """The pipeline or configuration file at `path` has mistakes, all of which are in `mistakes`."""

    path: str
    mistakes: tuple[str, ...]

    def __init__(self, path: str, mistakes: Sequence[str]) -> None:
        super().__init__(path, mistakes)
        self.path, self.mistakes = path, tuple(mistakes)

    def __str__(self) -> str:
        if len(self.mistakes) == 1 and self.mistakes[0].startswith(self.path):
            return self.mistakes[0]
        number = len(self.mistakes)
        head = f"{self.path} has {number} mistake{'' if number == 1 else 's'}:"
        return "\n".join((head, *(f"  {mistake}" for mistake in self.mistakes)))


class LockHeldError(AsyncbatchError):
    """Another process holds the lock; the message names the lock, the process and the time."""


class NoWorkerError(AsyncbatchError):
    """Worker processes die before they begin to work; the message has the reason."""


class WorkerBugError(AsyncbatchError):
    """A worker raised an exception; the message holds its traceback."""


class SinkError(AsyncbatchError):
    """The target can no longer be written; the message names it and the reason.

    `file` is its path, if it is not the target of the run.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message, file)
        self.file = file

    def __str__(self) -> str:
        return str(self.args[0])


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception of other code."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its own __str__ may raise any exception
        text = ""
    name = type(error).__name__
    return valid_text(f"{name}: {text}" if text else name)


def error_reason(error: Exception) -> str:
    """Return the message of an error; of one of the system without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    reason = error.strerror
    if error.errno is not None and reason.startswith("Connect call failed"):  # of asyncio
        reason = os.strerror(error.errno)
    return valid_text(f"{path}{reason}")


def valid_text(text: str) -> str:
    """Return `text` with halves of surrogate pairs escaped, which no output can encode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class SourceError(AsyncbatchError):
    """A source can no longer be read; the message names it and the reason."""


class LineTooLongError(AsyncbatchError):
    """A line has more bytes than an event may have."""


class TooManyKeysError(AsyncbatchError):
    """A window would have more than `most` keys."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a window has more than {self.most:,} {'key' if self.most == 1 else 'keys'}"
