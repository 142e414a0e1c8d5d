"""The output of a stream: windows, progress and the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from asyncbatch.cli.display.progress_lines import PlainProgress, stream_line
from asyncbatch.cli.display.text import budget_line, loss_line
from asyncbatch.cli.output import Output, to_stdout, verbose_line
from asyncbatch.cli.terminal import (
    find_log,
    is_terminal,
    stderr_is_log,
    stdout,
    to_stderr,
    write_stderr,
)
from asyncbatch.core.report import StreamReport
from asyncbatch.core.units import format_count, format_location, printable
from asyncbatch.sinks.target import STDOUT
from asyncbatch.sinks.windows import window_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.cli.display.prints import Prints
    from asyncbatch.cli.display.rich import LiveWindows
    from asyncbatch.cli.output import ProgressDisplay
    from asyncbatch.config.options.streams import StreamOutputFlags
    from asyncbatch.core.records import Failure, FileResult
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window, WindowSchema


class StreamPart:
    """Failures of a stream, and the windows that closed after them."""

    schema: WindowSchema
    windows: Sequence[Window]
    failures: Sequence[Failure]

    def __init__(
        self, schema: WindowSchema, windows: Sequence[Window], failures: Sequence[Failure]
    ) -> None:
        self.schema, self.windows, self.failures = schema, windows, failures

    @property
    def lines(self) -> bytes:
        """A line of JSON for each window."""
        return window_lines(self.schema, self.windows) if self.windows else b""

    def outcomes(self) -> Iterator[Failure | FileResult | Raw]:
        """Yield the failures, then the windows as JSON."""
        yield from self.failures
        yield from map(Raw, self.lines.splitlines())


class StreamOutput(Output):
    """The output of one stream.

    Text is windows on stdout, as a live table on a terminal, and all else on stderr. With a target
    `to`, windows are on stdout only in the table, and as events.
    """

    def __init__(
        self,
        options: StreamOutputFlags,
        stream: StreamCore,
        to: str | None,
        *,
        reads_stdin: bool = False,
        prints: Prints | None = None,
    ) -> None:
        self._stream = stream
        self._has_target = to is not None and to != STDOUT
        self._may_draw = to != STDOUT
        self._live: LiveWindows | None = None
        self._logged_losses = len(stream.tally.losses)  # earlier runs logged these
        super().__init__(options, stdout_is_taken=True, reads_stdin=reads_stdin, prints=prints)

    def _make_progress(self) -> ProgressDisplay:
        may_draw = self.form == "text" and self._may_draw and not self._user_types
        if may_draw and is_terminal(stdout().fileno()):
            from asyncbatch.cli.display.rich import LiveWindows

            self._live = LiveWindows(self._stream)
            return self._live
        return PlainProgress(write_stderr, stream_line)

    async def part(self, found: StreamPart) -> None:
        """Print windows and failures in the chosen format."""
        if self._live is not None:
            self._live.add(found.windows)
        elif self.form == "text" and not self._has_target:
            await to_stdout(found.lines)
        await super().part(found)

    def _verbose_lines(self, found: StreamPart) -> Iterator[str]:
        losses = {id(one) for one in self._stream.tally.losses}  # these have lines of their own
        yield from (verbose_line(one) for one in found.failures if id(one) not in losses)
        if self._has_target:
            for line in found.lines.splitlines():
                yield f"window  {line.decode()}"

    def snapshot(self, snapshot: StreamSnapshot) -> None:
        """Update the progress display, and log the data that could not be read since."""
        self._log_losses()
        super().snapshot(snapshot)

    def _log_losses(self) -> None:
        losses = self._stream.tally.losses
        for failure in losses[self._logged_losses :]:
            self._alert(loss_line(failure), "lost")
        self._logged_losses = len(losses)

    def _alert(self, line: str, event: str = "note") -> None:
        """Write an important line, also in quiet mode."""
        if (log := find_log()) is not None:
            log.note(line, event)
        if not stderr_is_log():
            self._show(line)

    def log_overdue(self, grace: float) -> None:
        self._alert(
            f"Error: the stream did not end within {grace:g} s of the signal: its open windows are "
            "not written"
        )

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the summary or the end of the document."""
        assert isinstance(report, StreamReport)
        self._log_losses()
        if self._live is not None:
            self._live.show(report)
            self._live = None
        await super().finish(report, budget, command, exit_code)
        tally = report.tally
        if tally.all_rejected and budget is None:
            reasons = [f": {printable(one.first.message)}" for one in tally.groups[:1]]
            count = format_count(tally.rejected, "event")
            all_of_them = "the only event was" if tally.rejected == 1 else f"all {count} were"
            to_stderr(f"Error: {all_of_them} rejected{''.join(reasons)}")
        if report.error is not None:
            to_stderr(f"Error: {report.error}")

    def _quiet_lines(self, report: AnyReport, budget: FailureBudget | None) -> Iterable[str]:
        """Yield the reasons for an exit status that is not 0, with the first failure."""
        assert isinstance(report, StreamReport)
        tally = report.tally
        if report.over_budget and (line := budget_line(report, budget)):
            yield line
            for failure in report.failures[:1]:
                place = printable(format_location(failure))
                yield f"The first of them: {place}: {failure.kind}: {printable(failure.message)}"
        for reason in tally.refusals:
            yield f"refused  {printable(reason)}"
        if more := tally.refused - len(tally.refusals):
            yield f"... and {more:,} more"
