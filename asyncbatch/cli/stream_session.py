"""The session of a stream: signals, output of windows, summary, exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from asyncbatch.cli import exit_codes
from asyncbatch.cli.output import to_stdout
from asyncbatch.cli.stream_display import make_display
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.cli.text import loss_line, stream_summary_lines
from asyncbatch.cli.values import failure_budget
from asyncbatch.core.units import format_count, printable
from asyncbatch.errors import AsyncbatchError, TooManyKeysError, UsageError
from asyncbatch.pipeline.stream.delivery import StreamDelivery
from asyncbatch.pipeline.stream.run import StreamRun
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.target import STDOUT
from asyncbatch.sinks.windows import window_lines
from asyncbatch.sources.base import AwaitedSource
from asyncbatch.sources.live.merge import MergedSources
from asyncbatch.storage.append import AppendFile
from asyncbatch.workers.wire import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cli.report_files import StreamReport
    from asyncbatch.cli.stream_display import StreamDisplay
    from asyncbatch.config.job import StreamSettings
    from asyncbatch.config.options.streams import (
        StreamControlFlags,
        StreamFailureFlags,
        StreamOutputFlags,
    )
    from asyncbatch.pipeline.stream.delivery import DeliverySettings, WindowWriter
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.windows.events import Window

_SNAPSHOT_SECONDS = 0.25


class _Output:
    """The WindowConsumer of a session: the display, and a target or standard output."""

    def __init__(
        self, stream: StreamCore, display: StreamDisplay, writer: WindowWriter | None
    ) -> None:
        self._stream, self._display, self._writer = stream, display, writer

    async def put(self, windows: Sequence[Window]) -> None:
        """Show windows, and write them to the target or standard output."""
        is_shown = self._display.add(windows)
        if self._writer is not None:
            await self._writer.put(windows)
        elif not is_shown:
            await to_stdout(window_lines(self._stream.schema, windows))

    async def flush(self) -> None:
        """Write all waiting windows to the target."""
        if self._writer is not None:
            await self._writer.flush()


class StreamSession:
    """One run of a stream in the main process, until its end, a limit or a signal.

    Call `carry_out` once. The first stop signal ends the stream cleanly. The second ends the
    process at once, as does a reader of our output that does not read the open windows within
    `grace` seconds.
    Raises UsageError, LockHeldError.
    """

    def __init__(
        self,
        settings: StreamSettings,
        sources: Sequence[LiveSource],
        delivery: DeliverySettings,
        *,
        late: str | None,
        dead_letter: str | None,
        control: StreamControlFlags,
        failures: StreamFailureFlags,
        output: StreamOutputFlags,
        call_concurrency: int,
        grace: float,
    ) -> None:
        self._reports = [_open_report(path) for path in output.report]
        late_file, dead_file = (
            AppendFile(path, is_private=True) if path else None for path in (late, dead_letter)
        )
        stream = StreamCore(
            settings,
            reject=dead_file.write if dead_file else None,
            late=late_file.write if late_file else None,
            max_events=control.max_events,
        )
        self._budget = failure_budget(failures.max_failures)
        self._quiet, self._sources = output.quiet, sources
        sides = {"--late": late_file, "--dead-letter": dead_file}
        self._stream_delivery = StreamDelivery(delivery, stream, sources, sides, self._on_failure)
        self._display = make_display(
            stream, quiet=output.quiet, stdout_is_taken=delivery.to == STDOUT
        )
        self._run = StreamRun(
            stream,
            MergedSources(sources),
            _Output(stream, self._display, self._stream_delivery.writer),
            duration=control.duration,
            budget=self._budget,
            workers=control.workers,
            checkpointer=self._stream_delivery.checkpointer,
            call_concurrency=call_concurrency,
            timeout=failures.timeout,
        )
        self._signal: int | None = None
        self._grace, self._signal_exit = grace, control.signal_exit
        self._logged_losses = 0
        try:
            self._open()
        except BaseException:
            self._display.close()
            raise

    def _open(self) -> None:
        """Start or resume the outputs. Raises UsageError, LockHeldError."""
        if self._stream_delivery.open():
            self._print_note(f"Resuming after {format_count(self._run.stream.tally.read, 'event')}")
        for source in self._sources:
            if isinstance(source, AwaitedSource) and source.is_missing:
                self._print_note(f"Waiting for {printable(source.name)}: there is no such file yet")
        checkpointer = self._stream_delivery.checkpointer
        for name in checkpointer.non_replayable_sources if checkpointer is not None else ():
            self._print_note(
                f"Note: {name} cannot be read again: if this process is killed, events since the "
                "last checkpoint are lost"
            )

    def carry_out(self) -> int:
        """Run the stream and return the exit status."""
        try:
            return asyncio.run(self._session())
        except TooManyKeysError as error:
            return self._fail(
                f"a window has more than {error.most:,} keys: allow more with --max-keys, or "
                "combine the others with --overflow-key"
            )
        except UsageError as error:
            return self._fail(str(error), exit_codes.USAGE)
        except (AsyncbatchError, OSError) as error:
            return self._fail(f"cannot continue: {error}")

    def _fail(self, message: str, code: int = exit_codes.FAILURES) -> int:
        self._display.close()
        to_stderr(f"Error: {message}")
        return self._write_reports(code, message)

    async def _session(self) -> int:
        loop = asyncio.get_running_loop()
        self._logged_losses = len(self._run.stream.tally.losses)  # earlier runs logged these
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                loop.add_signal_handler(number, self._on_signal, number)
        ticker = loop.create_task(self._show_progress())
        ended = False
        try:
            await self._run.run()
            ended = True
        except BrokenPipeError:
            self._leave(exit_codes.CLOSED_OUTPUT)
        finally:
            ticker.cancel()
            await self._stream_delivery.finish(ended=ended)
        return self._conclude()

    async def _show_progress(self) -> None:
        while True:
            await asyncio.sleep(_SNAPSHOT_SECONDS)
            self._log_losses()
            snapshot = self._run.snapshot()
            self._display.show(snapshot)
            for report in self._reports:
                with suppress(AsyncbatchError):  # if the error persists, the final write reports it
                    report.show(snapshot)

    def _log_losses(self) -> None:
        """Log the data that could not be read since the last call."""
        losses = self._run.stream.tally.losses
        for failure in losses[self._logged_losses :]:
            self._display.log(loss_line(failure))
        self._logged_losses = len(losses)

    def _conclude(self) -> int:
        over_budget = self._run.is_over_budget(final=True)
        snapshot = self._run.snapshot()
        self._log_losses()
        self._display.show(snapshot, last=True)
        self._display.close()
        budget = self._budget if over_budget else None
        for line in stream_summary_lines(snapshot, stopped=self._run.was_cut_short, budget=budget):
            self._print_note(line)
        tally = snapshot.tally
        is_lost = tally.all_rejected and self._budget is None
        if is_lost:
            reasons = [f": {printable(one.first.message)}" for one in tally.groups[:1]]
            failed = f"Error: all {tally.rejected:,} events were rejected{''.join(reasons)}"
            to_stderr(failed)
        is_good = not over_budget and not tally.refused and not is_lost
        code = exit_codes.SUCCESS if is_good else exit_codes.FAILURES
        if self._signal is not None and self._signal_exit:
            code = code or exit_codes.of_signal(self._signal)
        return self._write_reports(code)

    def _write_reports(self, code: int, error: str | None = None) -> int:
        """Write the reports with this exit code, and why the stream failed.

        Return the final exit code.
        """
        snapshot = self._run.snapshot()
        for report in self._reports:
            try:
                report.finish(snapshot, code, stopped=self._run.was_cut_short, error=error)
            except AsyncbatchError as unwritable:
                to_stderr(f"Error: {unwritable}")
                code = code or exit_codes.FAILURES
        return code

    def _print_note(self, line: str) -> None:
        if not self._quiet:
            to_stderr(line)

    def _on_failure(self) -> None:
        """Stop the run. The run then raises the reason."""
        self._run.stop()

    def _on_signal(self, number: int) -> None:
        if self._signal is not None:
            self._leave(exit_codes.of_signal(self._signal))
        self._signal = number
        self._run.stop()
        asyncio.get_running_loop().call_later(self._grace, self._abandon, number)

    def _abandon(self, number: int) -> NoReturn:
        self._display.log(
            f"Error: the stream did not end within {self._grace:g} s of the signal: its open "
            "windows are not written"
        )
        self._leave(exit_codes.of_signal(number))

    def _leave(self, code: int) -> NoReturn:
        """End the process now."""
        self._display.close()
        os._exit(code)


def _open_report(path: str) -> StreamReport:
    from asyncbatch.cli.report_files import StreamReport

    return StreamReport(path)
