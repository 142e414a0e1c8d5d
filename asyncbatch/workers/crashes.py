"""The crash policy: which file killed a worker, and which files are retried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.records import STDIN, Failure, display_path
from asyncbatch.errors import NoWorkerError
from asyncbatch.formats.failures import FileTimeoutError, file_failure

if TYPE_CHECKING:
    from asyncbatch.core.batches import Batch
    from asyncbatch.workers.engine import Loss

MAX_FAILED_STARTS = 8  # workers in a row that may die before their first batch while no batch ends
_ADVICE = {
    "was killed by SIGKILL": "; if memory ran out, use fewer --workers or set --max-file-size",
    "was killed by SIGSEGV": " (a fault in compiled code)",
}


class Decision(Struct, frozen=True):
    """The decision after a loss.

    `failure` is of file number `file`; without a `failure` that file is retried once, alone.
    Without a `file` the batch is retried, in halves if `halve`.
    """

    file: int | None = None
    failure: Failure | None = None
    halve: bool = False


class CrashPolicy:
    """Decides which file fails or is retried after a loss.

    `timeout` is the time limit of a file, in seconds.

    A file may be innocent of its worker's death, because a kernel short of memory kills any
    process. So it is retried once, alone. A file over its time limit is not, nor is standard input,
    which cannot be read twice.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._suspects: set[int] = set()
        self._failed_starts = 0

    def note_success(self) -> None:
        """Note that a worker has finished a batch."""
        self._failed_starts = 0

    def decide(self, batch: Batch, done: int, loss: Loss) -> Decision:
        """Return the decision about `batch`, of which the first `done` files are done.

        Raises NoWorkerError if no worker reaches its first batch.
        """
        if not loss.in_batch:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                raise NoWorkerError(
                    f"{MAX_FAILED_STARTS} worker processes in a row ended before they began to "
                    f"work; the last {loss.description}{_ADVICE.get(loss.description, '')}"
                )
            return Decision()
        self._failed_starts = 0
        file, last = loss.file, batch.start + len(batch.paths) - 1
        if file is None or not batch.start + done <= file <= last:
            if len(batch.paths) - done > 1:
                return Decision(halve=True)
            file = last
        path = batch.paths[file - batch.start]
        # Parts of a split cannot be taken back, so it is not retried.
        is_final = loss.timed_out or path == STDIN or batch.split is not None
        if not is_final and file not in self._suspects:
            self._suspects.add(file)
            return Decision(file)
        self._suspects.discard(file)
        return Decision(file, self.crash_failure(path, loss))

    def crash_failure(self, path: str, loss: Loss) -> Failure:
        """Return the failure of the file at `path`, at which a worker died."""
        if loss.timed_out:
            return file_failure(display_path(path), FileTimeoutError(self._timeout or 0.0))
        advice = _ADVICE.get(loss.description, "")
        message = f"its worker process {loss.description} while it processed this file{advice}"
        return Failure(display_path(path), "worker_crash", message)
