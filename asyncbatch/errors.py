"""What asyncbatch raises.

Bad files and bad records are data (see `records.Failure`); an exception means that
the job itself cannot start or go on::

    AsyncbatchError
    ├── UsageError        the job was asked for in a way that cannot work
    │   ├── NothingMatchedError    no input file was found
    │   └── TargetBusyError        another process is at the target
    ├── LockHeldError          another process has the lock
    ├── HttpError         a URL could not be read (in `http.failure`)
    ├── SinkError         the target was lost midway
    ├── NoWorkerError     worker processes end before they begin to work
    └── WorkerBugError         a worker raised: a defect of asyncbatch, not of the input
"""


class AsyncbatchError(Exception):
    """The root of everything that asyncbatch raises on purpose."""


class UsageError(AsyncbatchError):
    """The job was asked for in a way that cannot work; the message says what to change."""


class NothingMatchedError(UsageError):
    """No input file was found where the job was told to look."""


class TargetBusyError(UsageError):
    """Another process is at the target, which may soon be over."""


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
