"""The output of commands. No other module chooses between stdout and stderr."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Protocol

import aiofiles
from aiofiles.threadpool import wrap

from asyncbatch.cli.display import text as plain
from asyncbatch.cli.display.progress_lines import PlainProgress
from asyncbatch.cli.display.text import SummaryOptions, budget_line
from asyncbatch.cli.terminal import (
    columns_of,
    find_log,
    is_terminal,
    set_color,
    stderr_is_log,
    stdout,
    stdout_error,
    stdout_is_closed,
    wants_style,
    write_stderr,
)
from asyncbatch.config.options.control import RunOutputFlags
from asyncbatch.core.records import Failure, FileResult
from asyncbatch.core.report import MAX_LISTED_FAILURES, Report
from asyncbatch.core.units import format_count, format_elapsed, format_location, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.cli.display.prints import Prints
    from asyncbatch.cli.render import Renderer
    from asyncbatch.config.options.control import OutputFlags, OutputFormat
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget

_STDERR = 2


def _make_renderer(form: OutputFormat) -> Renderer | None:  # noqa: PLR0911 - one return per format
    """Return the renderer of a format, or None for text.

    Only its own module is imported: the others take a tenth of the start of a run.
    """
    match form:
        case "json":
            from asyncbatch.cli.render.json import JsonReport

            return JsonReport()
        case "jsonl":
            from asyncbatch.cli.render.json import JsonLines

            return JsonLines()
        case "junit":
            from asyncbatch.cli.render.junit import Junit

            return Junit()
        case "github":
            from asyncbatch.cli.render.github import Github

            return Github()
        case "sarif":
            from asyncbatch.cli.render.findings import Sarif

            return Sarif()
        case "gitlab":
            from asyncbatch.cli.render.findings import GitlabQuality

            return GitlabQuality()
        case _:
            return None


class ProgressDisplay(Protocol):
    """A display of the progress of a run or stream."""

    @property
    def count_after(self) -> float | None:
        """The seconds after which it has a use for the number of all inputs; None: never."""
        ...

    def show(self, snapshot: Any) -> None:
        """Show a snapshot. A display may skip snapshots that come too soon."""
        ...

    def log(self, line: str) -> None:
        """Write a line without disturbing the progress."""
        ...

    def suspend(self) -> None:
        """Leave the terminal to others, until the next snapshot that may be shown."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


class Output:
    """The output of one run: results on stdout, progress and log lines on stderr.

    Owned by the Session, which calls `part` for each part and `finish` once. With `quiet`, only
    failures are printed, on stderr; a machine format on stdout stays, because the user asked for
    it. If records go to stdout (`stdout_is_taken`), the summary goes to stderr. `reads_stdin`: the
    input is standard input. `prints` of user functions are shown above the progress.
    """

    is_plan = False  # of a dry run that reads no file

    def __init__(
        self,
        options: OutputFlags,
        *,
        stdout_is_taken: bool = False,
        reads_stdin: bool = False,
        prints: Prints | None = None,
    ) -> None:
        set_color(options.color)
        self.form = form = options.output
        self._renderer = _make_renderer(form)
        self.quiet, self._verbose = options.quiet, options.verbose
        self.show_failures = options.show_failures
        # The number of slow files to list; None: those that take long.
        self.slowest = options.slowest if isinstance(options, RunOutputFlags) else None
        # Returns the steps that the user may take after a run.
        self.next_steps: Callable[[AnyReport], Sequence[str]] = lambda _: ()
        self._stdout_is_taken = stdout_is_taken
        # Typed input is echoed, and would break a display.
        self._user_types = reads_stdin and sys.stdin.isatty()
        shows_progress = options.progress and not self.quiet and not stderr_is_log()
        self._progress = self._make_progress() if shows_progress else None
        self._prints = prints
        if prints is not None and self._progress is not None:
            prints.show = self._progress.log

    @property
    def failure_limit(self) -> float:
        """The number of failures that are listed."""
        if self._renderer is None:
            return max(self.show_failures, MAX_LISTED_FAILURES)
        from asyncbatch.cli.render.findings import failure_limit

        return max(self.show_failures, failure_limit(self._renderer))

    @property
    def streams_results(self) -> bool:
        """Whether results appear on stdout during the run."""
        return self.form == "jsonl" or self._stdout_is_taken

    @property
    def count_after(self) -> float | None:
        """The seconds after which the number of all inputs is shown; None: never."""
        return self._progress.count_after if self._progress else None

    def _make_progress(self) -> ProgressDisplay:
        # Result lines on the same screen would break a display that redraws itself.
        # The reader of a pipe may write to this screen, too.
        mode = os.fstat(stdout().fileno()).st_mode
        shares_screen = os.isatty(stdout().fileno()) or stat.S_ISFIFO(mode)
        streams_here = self.streams_results and shares_screen
        if is_terminal(sys.stderr.fileno()) and not streams_here and not self._user_types:
            from asyncbatch.cli.display.rich import LiveProgress

            return LiveProgress()
        return PlainProgress(write_stderr)

    async def part(self, found: Any) -> None:
        """Print the outcome of some files in the chosen format."""
        if self._renderer is not None:
            await events_to_stdout(self._renderer.part(found))
        if self._verbose:
            for line in self._verbose_lines(found):
                self.log(line, "detail")

    def _verbose_lines(self, found: Any) -> Iterable[str]:
        return map(verbose_line, found.outcomes())

    def snapshot(self, snapshot: Any) -> None:
        """Update the progress display."""
        if self._progress:
            self._progress.show(snapshot)

    def log(self, line: str, event: str = "note") -> None:
        """Write a line to stderr, unless `quiet` is set; to the log, if any, as an event."""
        if (log := find_log()) is not None:
            log.note(line, event)
        if not self.quiet and not stderr_is_log():
            self._show(line)

    def _show(self, line: str) -> None:
        """Write a line to stderr, above the progress."""
        if self._progress:
            self._progress.log(line)
        else:
            write_stderr(line)

    def log_overdue(self, grace: float) -> None:
        """Write that the work was not done `grace` seconds after a stop signal."""
        self.log(f"Stopped after {grace:g} s, before the work in flight was done", "signal")

    def suspend(self) -> None:
        """Leave the terminal to others: this process is about to stop."""
        if self._progress:
            self._progress.suspend()

    def close(self) -> None:
        """End the progress display."""
        if self._progress:
            self._progress.close()
            self._progress = None
        if self._prints:
            self._prints.close()
            self._prints = None

    async def complete(self, report: AnyReport) -> None:
        """Add to the report what only the output knows. Call it before report files are written."""

    async def finish(
        self, report: AnyReport, budget: FailureBudget | None, command: str, exit_code: int
    ) -> None:
        """Print the summary or the end of the document."""
        self.close()
        if self.form != "text" and report.over_budget:
            self.log(budget_line(report, budget) or "")
        if self.quiet and not stderr_is_log():
            for line in self._quiet_lines(report, budget):
                write_stderr(line)
        if self._renderer is not None:
            for data in self._renderer.finish(report, command, exit_code):
                await events_to_stdout(data)
            await self._append_step_summary(report, command, exit_code)
        elif not self.quiet:
            options = SummaryOptions(
                exit_code, budget, self.show_failures, self.slowest, self.next_steps(report),
                columns_of(_STDERR if self._stdout_is_taken else stdout().fileno()),
            )  # fmt: skip
            await self._finish_text(report, options)

    def _quiet_lines(
        self,
        report: AnyReport,
        budget: FailureBudget | None,  # noqa: ARG002 - streams use it
    ) -> Iterable[str]:
        """Return the lines that are printed in spite of `quiet`."""
        return plain.failure_lines(report, self.show_failures, columns_of(_STDERR))

    async def _append_step_summary(self, report: AnyReport, command: str, exit_code: int) -> None:
        """Append the report to the summary page of a GitHub job, if there is one."""
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        if self.form == "github" and page:
            async with aiofiles.open(page, "ab") as stream:
                from asyncbatch.cli.render.markdown import Markdown

                await stream.writelines(Markdown().finish(report, command, exit_code))

    async def _finish_text(self, report: AnyReport, options: SummaryOptions) -> None:
        if stderr_is_log() if self._stdout_is_taken else stdout_is_closed():
            return  # the end of the log has these figures, or nobody reads them
        stream = sys.stderr if self._stdout_is_taken else stdout()
        if isinstance(report, Report) and wants_style(stream.fileno()):
            from asyncbatch.cli.display.rich import summary_text

            text = summary_text(report, options)
        else:
            text = plain.summary_text(report, options)
        data = text.encode("utf-8", "backslashreplace")
        if self._stdout_is_taken:
            await aiofiles.stderr_bytes.write(data)
            await aiofiles.stderr_bytes.flush()  # after a signal the process ends at once
        else:
            await to_stdout(data)


def verbose_line(outcome: Failure | FileResult) -> str:
    """Return the line about a rejected record or a finished file, with any traceback."""
    if isinstance(outcome, Failure):
        word = "late" if outcome.kind == "late" else "rejected"
        line = f"{word:8}  {printable(format_location(outcome))}  {printable(outcome.message)}"
        if isinstance(outcome.traceback, str):
            # The bar keeps a line of a user function's text from being a command of a CI runner.
            shown = map(printable, outcome.traceback.rstrip().splitlines())
            line += "".join(f"\n        | {text}" for text in shown)
        return line
    more = f"  {outcome.error.kind}" if outcome.error else ""
    file, records = printable(outcome.file), format_count(outcome.records, "record")
    return f"{outcome.status:8}  {file}  {records}, {format_elapsed(outcome.elapsed_ms)}{more}"


async def events_to_stdout(data: bytes) -> None:
    """Write a report or its events, as JSON with the same meaning but no commands of CI runners."""
    for command in (b"##[", b"##vso["):
        data = data.replace(command, rb"\u0023" + command[1:]) if data[:1] == b"{" else data
    await to_stdout(data)


async def to_stdout(data: bytes) -> None:
    """Write to standard output in a thread.

    A slow or stopped reader must not block the event loop. Raises SinkError; BrokenPipeError if the
    reader has ended.
    """
    if data:
        stream = wrap(stdout().buffer)
        try:
            await stream.write(data)
            await stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise stdout_error(error) from None
