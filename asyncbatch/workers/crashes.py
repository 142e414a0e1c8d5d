"""The crash policy: which file or event killed a worker, and which are retried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.records import Failure
from asyncbatch.errors import NoWorkerError
from asyncbatch.formats.failures import FileTimeoutError, file_failure

if TYPE_CHECKING:
    from asyncbatch.core.batches import Batch
    from asyncbatch.workers.engine import Loss
    from asyncbatch.workers.tasks.events import LineBatch

MAX_FAILED_STARTS = 8  # workers in a row that may die before their first batch while no batch ends
_ADVICE = {
    "was killed by SIGKILL": "; if memory ran out, use fewer --workers",
    "was killed by SIGSEGV": " (a fault in compiled code)",
}


class Decision(Struct, frozen=True):
    """The decision after a loss.

    `failure` is of item number `file`; without a `failure` that item is retried once, alone.
    Without a `file` the batch is retried, in halves if `halve`.
    """

    file: int | None = None
    failure: Failure | None = None
    halve: bool = False


class CrashPolicy:
    """Decides which file or event fails or is retried after a loss.

    `timeout` is the time limit of one, in seconds.

    A file may be innocent of its worker's death, because a kernel short of memory kills any
    process. So it is retried once, alone. A file over its time limit is not, nor is standard input,
    which cannot be read twice. The same holds for events.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._suspects: set[int] = set()
        self._failed_starts = 0

    def note_success(self) -> None:
        """Note that a worker has finished a batch."""
        self._failed_starts = 0

    def decide(self, batch: Batch | LineBatch, done: int, loss: Loss) -> Decision:
        """Return the decision about `batch`, of which the first `done` items are done.

        Raises NoWorkerError if no worker reaches its first batch.
        """
        from asyncbatch.core.log import log_warning

        name = None if loss.file is None else self._name(batch, loss.file)
        at = "" if name is None else f" at {name}"
        log_warning("worker_crash", f"a worker process {loss.description}{at}", file=name)
        if not loss.in_batch:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                raise NoWorkerError(
                    f"{MAX_FAILED_STARTS} worker processes in a row ended before they began to "
                    f"work; the last {loss.description}{_advice(loss, batch)}"
                )
            return Decision()
        self._failed_starts = 0
        file, last = loss.file, batch.start + batch.count - 1
        if file is None or not batch.start + done <= file <= last:
            if batch.count - done > 1:
                return Decision(halve=True)
            file = last
        if batch.may_retry(file) and not loss.timed_out and file not in self._suspects:
            self._suspects.add(file)
            return Decision(file)
        self._suspects.discard(file)
        return Decision(file, self.crash_failure(batch, file, loss))

    def _name(self, batch: Batch | LineBatch, number: int) -> str | None:
        """Return the name of item `number`; None if it is not of this batch."""
        return batch.name(number) if batch.start <= number < batch.start + batch.count else None

    def crash_failure(self, batch: Batch | LineBatch, number: int, loss: Loss) -> Failure:
        """Return the failure of item `number`, at which a worker died."""
        file = batch.name(number)
        if loss.timed_out:
            return file_failure(file, FileTimeoutError(self._timeout or 0.0))
        message = f"its worker process {loss.description} while {batch.moment}"
        return Failure(file, "worker_crash", message + _advice(loss, batch))


def _advice(loss: Loss, batch: Batch | LineBatch) -> str:
    advice = _ADVICE.get(loss.description, "")
    return advice + batch.advice if "memory" in advice else advice
