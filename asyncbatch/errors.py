"""What asyncbatch raises.

Bad files and bad records are data (see `records.Failure`); an exception means that
the job itself cannot start or go on::

    AsyncbatchError
    ├── UsageError        the job was asked for in a way that cannot work
    │   ├── NothingMatchedError    no input file was found
    │   ├── TargetBusyError        another process is at the target
    │   └── PipelineFileError      a pipeline file has mistakes
    ├── LockHeldError          another process has the lock
    ├── HttpError         a URL could not be read (in `http.failure`)
    ├── SinkError         the target was lost midway
    ├── NoWorkerError     worker processes end before they begin to work
    └── WorkerBugError         a worker raised: a defect of asyncbatch, not of the input
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncbatchError(Exception):
    """The root of everything that asyncbatch raises on purpose."""


class UsageError(AsyncbatchError):
    """The job was asked for in a way that cannot work; the message says what to change."""


class NothingMatchedError(UsageError):
    """No input file was found where the job was told to look."""


class TargetBusyError(UsageError):
    """Another process is at the target, which may soon be over."""


class PipelineFileError(UsageError):
    """The pipeline file at `path` cannot be meant; `mistakes` are all that is wrong with it."""

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
    """Another process has the lock; the message says which lock, which process, and since when."""


class NoWorkerError(AsyncbatchError):
    """Worker processes end before they begin to work; the message says how."""


class WorkerBugError(AsyncbatchError):
    """A worker raised an exception; the message holds its traceback."""


class SinkError(AsyncbatchError):
    """The target can be written to no more; the message says which, and why.

    `file` names it if it is not the run's own target.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message, file)
        self.file = file

    def __str__(self) -> str:
        return str(self.args[0])


def described(error: BaseException) -> str:
    """Return what somebody else's code raised, by its type and in its own words."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its own __str__ may raise whatever it likes
        text = ""
    name = type(error).__name__
    return f"{name}: {text}" if text else name


class SourceError(AsyncbatchError):
    """A source can be read no further; the message says which, and why."""


class LineTooLongError(AsyncbatchError):
    """A line does not end: it has more bytes than any event may."""


class TooManyKeysError(AsyncbatchError):
    """A window would have more keys than it may: `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a window has more than {self.most:,} keys"
