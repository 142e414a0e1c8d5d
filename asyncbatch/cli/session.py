"""The session of a command: progress, signals, report files, summary, exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from asyncbatch.cli import exit_codes
from asyncbatch.cli.display.next_steps import next_steps
from asyncbatch.cli.terminal import find_log, to_stderr
from asyncbatch.core.report import (
    MAX_LISTED_FAILURES,
    MAX_SLOWEST_FILES,
    Report,
    process_run_id,
)
from asyncbatch.core.system import keep_freed_memory, leave_out_of_collection
from asyncbatch.errors import (
    AsyncbatchError,
    SinkError,
    TooManyKeysError,
    UsageError,
    WorkerBugError,
    error_reason,
)
from asyncbatch.workers.wire import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from asyncbatch.cli.observers.base import RunObserver
    from asyncbatch.cli.observers.service_notices import ServiceNotices
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.config.job import Job
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget

_SNAPSHOT_SECONDS = 0.25
_SUMMARY_SECONDS = 2.0
_OBSERVER_SECONDS = 5.0  # for each observer to learn of the end
_REPEAT_SECONDS = 0.5  # within which a repeated signal is the same request
_HASTY_SECONDS = 1.0  # the same after a second signal, which stops at once
_UNWINDING_SECONDS = 4.0  # for the end of cancelled work, which may wait for a stuck thread


class SessionWork(Protocol):
    """The work of a session: a run of batches, or a stream."""

    @property
    def report(self) -> AnyReport:
        """The report, which `snapshot` updates."""
        ...

    async def deliver(self, take: Callable[[Any], Awaitable[None]]) -> None:
        """Do the work, and hand each part of its outcome to `take`."""
        ...

    def stop(self) -> None:
        """Read no more input; `deliver` ends when the work in flight is done."""
        ...

    def snapshot(self) -> Any:
        """Return the progress."""
        ...


class Session:
    """One run of a command in the main process, from start to exit code.

    Call `carry_out` once. `command` is the name of the command in reports. After the first stop
    signal, the work in flight has `grace` seconds to finish. The second ends the process at once.
    `signal_exit` is false if work that a signal has ended keeps its own exit status; None if its
    failures count more than the signal. If the work `is_endless`, the reports are written again and
    again. The `observers` learn of the begin and, however the session ends, of the end.
    """

    def __init__(
        self,
        work: SessionWork,
        output: Output,
        *,
        command: str,
        budget: FailureBudget | None = None,
        report_files: Sequence[ReportFile] = (),
        grace: float = 8.0,
        signal_exit: bool | None = True,
        observers: Sequence[RunObserver] = (),
        is_endless: bool = False,
    ) -> None:
        self._work, self._output = work, output
        self._command, self._budget = command, budget
        self._report_files, self._grace = list(report_files), grace
        self._report_error: SinkError | None = None  # of the first report that failed
        self._signal_exit = signal_exit
        self._signal: int | None = None
        self._signalled_at = 0.0  # seconds of the loop's clock
        self._is_endless = is_endless
        work.report.run_id = process_run_id()
        self._observers = list(observers)
        if find_log() is not None:
            from asyncbatch.cli.observers.log import observe_run

            self._observers += observe_run(work.report, command)
        self._has_snapshot = False  # whether the report has the counts of the end
        self._notices: ServiceNotices | None = None
        if "NOTIFY_SOCKET" in os.environ:
            from asyncbatch.cli.observers.service_notices import ServiceNotices

            self._notices = ServiceNotices()

    def carry_out(self) -> int:
        """Do the work and return the exit status.

        After a signal, or if the reader closed our output, the process ends inside this call:
        a thread that is stuck in a read or a write would block a normal exit.
        """
        keep_freed_memory()
        leave_out_of_collection()
        try:
            code = self._carry_out()
        except BaseException as error:
            self._note_error(type(error).__name__)
            self._end_observers(exit_codes.FAILURES)
            raise
        self._end_observers(code)
        for observer in self._observers:
            observer.linger(code)
        leave_out_of_collection()  # at the exit
        return code

    def _carry_out(self) -> int:
        try:
            return asyncio.run(self._session())
        except UsageError as error:
            return self._fail(str(error), exit_codes.USAGE)
        except WorkerBugError as error:
            return self._fail(f"this is a bug in asyncbatch, please report it:\n{error}")
        except TooManyKeysError as error:
            return self._fail(
                f"{error}: allow more with --max-keys, or combine the others with --overflow-key"
            )
        except (AsyncbatchError, OSError) as error:
            return self._fail(f"cannot continue: {error_reason(error)}")

    def _fail(self, message: str, code: int = exit_codes.FAILURES) -> int:
        self._output.close()
        to_stderr(f"Error: {message}")
        self._note_error(message)
        return code

    def _note_error(self, message: str) -> None:
        """Give the observers a reason, if the error came after the report was written."""
        report = self._work.report
        report.error = report.error or message

    async def _session(self) -> int:
        loop = asyncio.get_running_loop()
        ticker = loop.create_task(self._show_progress())
        work = loop.create_task(self._work.deliver(self._take))
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                loop.add_signal_handler(number, self._on_signal, number, work)
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGTSTP, self._stop_process)
        for observer in self._observers:  # from now on, a signal leads to an end
            observer.begin(self._work.report)
        is_overdue = False
        try:
            await work
        except asyncio.CancelledError:
            is_overdue = True
        except BrokenPipeError:
            await self._abandon_reports()
            self._leave(exit_codes.CLOSED_OUTPUT)
        except (AsyncbatchError, OSError) as error:
            await self._report_failure(error)
            raise
        finally:
            ticker.cancel()
        self._work.snapshot()
        code = exit_codes.of_report(self._work.report, self._budget)
        if self._signal is None:
            return await self._conclude(code)
        if is_overdue or self._signal_exit or (self._signal_exit is None and not code):
            code = exit_codes.of_signal(self._signal)
        return await self._conclude_interrupted(code)

    async def _conclude_interrupted(self, code: int) -> NoReturn:
        with suppress(TimeoutError):  # the reader of our output may have stopped reading
            code = await asyncio.wait_for(self._conclude(code), _SUMMARY_SECONDS)
        self._leave(code)

    async def _take(self, part: Any) -> None:
        for file in tuple(self._report_files):
            with self._drop_if_unwritable(file):
                await file.part(part)
        for observer in self._observers:
            observer.part(part)
        await self._output.part(part)

    async def _show_progress(self) -> None:
        while True:
            await asyncio.sleep(_SNAPSHOT_SECONDS)
            if self._notices is not None:
                self._notices.tick()
            snapshot, report = self._work.snapshot(), self._work.report
            self._output.snapshot(snapshot)
            for file in tuple(self._report_files):
                file.update(report)
                if self._is_endless and isinstance(report, Report):
                    code = exit_codes.of_report(report, self._budget)
                    await file.rewrite(report, self._command, code)
            for observer in self._observers:
                observer.snapshot(snapshot, report)

    async def _conclude(self, code: int) -> int:
        report, self._has_snapshot = self._work.report, True
        await self._output.complete(report)
        if report.error is not None:
            code = code or exit_codes.FAILURES
        for file in tuple(self._report_files):
            with self._drop_if_unwritable(file):
                await file.finish(report, self._command, code)
        if self._report_error:
            report.lose_target(str(self._report_error), self._report_error.file)
            code = code or exit_codes.FAILURES
        try:
            await self._output.finish(report, self._budget, self._command, code)
        except BrokenPipeError:
            self._leave(exit_codes.CLOSED_OUTPUT)
        return code

    async def _report_failure(self, error: Exception) -> None:
        """Write the reports of work that could not begin, or not go on."""
        report = self._work.report
        report.error = error_reason(error)
        code = exit_codes.USAGE if isinstance(error, UsageError) else exit_codes.FAILURES
        self._work.snapshot()
        self._has_snapshot = True
        for file in tuple(self._report_files):
            if file.is_replaceable:
                with self._drop_if_unwritable(file):
                    await file.finish(report, self._command, code)
            else:
                await file.abandon()

    async def _abandon_reports(self) -> None:
        for file in self._report_files:
            await file.abandon()

    @contextmanager
    def _drop_if_unwritable(self, file: ReportFile) -> Iterator[None]:
        """Continue without a report file that cannot be written. Keep the first error."""
        try:
            yield
        except SinkError as error:
            self._report_error = self._report_error or error
            self._report_files.remove(file)

    def _stop_process(self) -> None:
        """Stop this process until it is continued: Ctrl-Z. The terminal is for others then."""
        loop = asyncio.get_running_loop()
        self._output.suspend()
        loop.remove_signal_handler(signal.SIGTSTP)
        # Not SIGSTOP: the system ignores this one if no shell is there that could continue us.
        os.kill(os.getpid(), signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, self._stop_process)

    def _on_signal(self, number: int, work: asyncio.Task[None]) -> None:
        now = asyncio.get_running_loop().time()
        if self._signal is not None:
            # timeout(1) signals the process, and at once its group: that is one request.
            if number != signal.SIGINT and now - self._signalled_at < _REPEAT_SECONDS:
                return
            self._output.log("Stopped at once: the work in flight is given up", "signal")
            self._leave(exit_codes.of_signal(self._signal), _HASTY_SECONDS)
        self._signal, self._signalled_at = number, now
        self._output.log(
            f"Stopping: finishing the work in flight, for at most {self._grace:g} s "
            "(a second signal stops at once)",
            "signal",
        )
        if self._notices is not None:
            self._notices.stopping()
        self._work.stop()
        asyncio.get_running_loop().call_later(self._grace, self._abandon, number, work)

    def _abandon(self, number: int, work: asyncio.Task[None]) -> None:
        """End the work that is still in flight at the end of the grace."""
        if work.done():
            return
        self._output.log_overdue(self._grace)
        work.cancel()
        code = exit_codes.of_signal(number)
        asyncio.get_running_loop().call_later(_UNWINDING_SECONDS, self._leave, code)

    def _leave(self, code: int, wait_s: float = _OBSERVER_SECONDS) -> NoReturn:
        """End the process now. The workers end with it."""
        self._output.close()
        if code == exit_codes.CLOSED_OUTPUT:
            self._note_error("the reader closed the output")
        self._end_observers(code, wait_s)
        os._exit(code)

    def _end_observers(self, code: int, wait_s: float = _OBSERVER_SECONDS) -> None:
        """Tell the observers how the work ended."""
        if self._observers and not self._has_snapshot:  # the end came in the middle of the work
            self._work.snapshot()
        for observer in self._observers:
            observer.end(self._work.report, code, wait_s)


def run_job(
    job: Job,
    shown: Output,
    *,
    command: str,
    report_files: Sequence[ReportFile],
    grace: float,
    notes: Sequence[str] = (),
    observers: Sequence[RunObserver] = (),
    **options: Any,
) -> int:
    """Run a job in a session and return the exit status. `options` are those of `Run`."""
    from asyncbatch.pipeline.run import Run

    listed = max([shown.failure_limit, *(file.failure_limit for file in report_files)])
    count_after = shown.count_after
    shows_details = any(observer.shows_details for observer in observers)
    if shows_details:
        listed, count_after = max(listed, MAX_LISTED_FAILURES), 0.0
    run = Run(job, failure_limit=listed, say=shown.log, count_after=count_after, **options)
    run.report.notes += notes
    run.report.is_plan = shown.is_plan
    run.report.slowest_limit = max(MAX_SLOWEST_FILES, shown.slowest or 0)
    has_log = find_log() is not None
    if shows_details or has_log or any(file.shows_settings for file in report_files):
        from asyncbatch.cli.options.job_settings import job_settings

        run.report.settings = job_settings(job)
    if command != "validate":
        shown.next_steps = partial(next_steps, job, command)
    return Session(
        run, shown, command=command, budget=job.budget, report_files=report_files, grace=grace,
        observers=observers, is_endless=job.watch is not None,
    ).carry_out()  # fmt: skip
