"""The work of `asyncbatch stream`: sources to windows, and these to their outputs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from asyncbatch.cli.display.prints import capture_prints
from asyncbatch.cli.display.stream_output import StreamOutput, StreamPart
from asyncbatch.cli.options.values import failure_budget
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.core.records import STDIN
from asyncbatch.core.report import StreamReport
from asyncbatch.core.retry import Retries
from asyncbatch.core.secrets import redact_address
from asyncbatch.core.units import format_count, printable
from asyncbatch.errors import UsageError
from asyncbatch.pipeline.stream.delivery import StreamDelivery
from asyncbatch.pipeline.stream.run import StreamRun
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.target import STDOUT
from asyncbatch.sources.base import AwaitedSource
from asyncbatch.sources.live.merge import MergedSources
from asyncbatch.storage.append import AppendFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.config.options.streams import (
        StreamControlFlags,
        StreamFailureFlags,
        StreamOutputFlags,
    )
    from asyncbatch.core.records import Failure
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.pipeline.stream.delivery import DeliverySettings
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.windows.events import Window

_MOST_WINDOWS = 10_000  # that are shown and written together
_LARGE_FILE_BYTES = 32 * 1024 * 1024  # of sources that surely have work for a worker


class StreamWork:
    """One run of a stream, for a session. It is also the WindowConsumer of the run.

    `output` takes the parts, and is made by `open`, which starts or resumes the outputs.
    `other_outputs` maps options to files that the caller writes, and `reads` are files that it has
    read: none may be an output. `lists_failures`: parts have the failures; `reports_settings`: the
    report has the settings. Raises UsageError.
    """

    output: StreamOutput

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
        other_outputs: Mapping[str, str],
        reads: tuple[str, ...] = (),
        lists_failures: bool,
        reports_settings: bool = False,
    ) -> None:
        _check_output(output.output, delivery.to)
        settings = replace(settings, retries=Retries(failures.retries, failures.retry_delay))
        for name, reason in settings.contradictions(has_late=late is not None):
            raise UsageError(f"--{name.replace('_', '-')} {reason}")
        late_file, dead_file = (
            AppendFile(path, is_private=True) if path else None for path in (late, dead_letter)
        )
        self._failures: list[Failure] = []  # since the last part
        self._stream = StreamCore(
            settings,
            reject=dead_file.write if dead_file else None,
            late=late_file.write if late_file else None,
            on_failure=self._failures.append if lists_failures or output.verbose else None,
            failure_groups=output.show_failures,
            max_events=control.max_events,
        )
        self.budget: FailureBudget | None = failure_budget(failures.max_failures)
        self.report: StreamReport = StreamReport()
        self._sources, self._options, self._to = sources, output, delivery.to
        self._transforms = settings.transforms
        if reports_settings:
            from asyncbatch.cli.options.job_settings import stream_settings

            names = [source.name for source in sources]
            self.report.settings = stream_settings(
                settings, names, delivery, self.budget, control.workers
            )
        table = f" ({delivery.table})" if delivery.table else ""
        self.target: str | None = (
            None if delivery.to is None else redact_address(delivery.to) + table
        )
        self.has_checkpoint: bool = delivery.checkpoint is not None
        files = {"--late": late_file, "--dead-letter": dead_file}
        self._delivery = StreamDelivery(
            *(delivery, self._stream, sources, files, self.stop),
            other_outputs=other_outputs,
            reads=reads,
        )
        self._run = StreamRun(
            self._stream,
            MergedSources(sources),
            self,
            duration=control.duration,
            budget=self.budget,
            workers=control.workers,
            checkpointer=self._delivery.checkpointer,
            call_concurrency=call_concurrency,
            timeout=failures.timeout,
        )

    def open(self) -> None:
        """Start or resume the outputs. Raises UsageError, LockHeldError, OSError."""
        is_resumed = self._delivery.open()
        paths = [source.name for source in self._sources if os.path.isfile(source.name)]
        if sum(map(os.path.getsize, paths)) > _LARGE_FILE_BYTES:
            self._run.fork_workers()
        for line in () if self._options.quiet else self._notes(is_resumed=is_resumed):
            to_stderr(line)
        reads_stdin = any(source.name == STDIN for source in self._sources)
        self.output = StreamOutput(
            self._options,
            self._stream,
            self._to,
            reads_stdin=reads_stdin,
            prints=capture_prints(self._options, self._transforms),
        )

    def _notes(self, *, is_resumed: bool) -> Iterator[str]:
        if is_resumed:
            yield f"Resuming after {format_count(self._stream.tally.read, 'event')}"
        for source in self._sources:
            if isinstance(source, AwaitedSource) and source.is_missing:
                yield f"Waiting for {printable(source.name)}: there is no such file yet"
        checkpointer = self._delivery.checkpointer
        for name in checkpointer.non_replayable_sources if checkpointer is not None else ():
            yield (
                f"Note: {name} cannot be read again: if this process is killed, events since the "
                "last checkpoint are lost"
            )

    async def deliver(self, take: Callable[[Any], Awaitable[None]]) -> None:
        """Run the stream to its end, and hand its windows and failures to `take`.

        Raises the exceptions of `StreamRun.run`.
        """
        self._take, ended = take, False
        try:
            await self._run.run()
            ended = True
        finally:
            await self._delivery.finish(ended=ended)
        self.report.over_budget = self._run.is_over_budget(final=True)

    def stop(self) -> None:
        """Read no more events; `deliver` then ends with the open windows."""
        self._run.stop()

    def snapshot(self) -> StreamSnapshot:
        """Return the progress of the stream, and update the report."""
        found, report = self._run.snapshot(), self.report
        report.tally, report.read, report.bytes = found.tally, found.read, found.bytes
        report.elapsed_s, report.lag, report.memory = found.elapsed_s, found.lag, found.memory
        report.left, report.stopped = found.left, self._run.was_cut_short
        report.notes = found.tally.notes
        report.workers = max(report.workers or 0, self._run.worker_count)
        return found

    async def put(self, windows: Sequence[Window]) -> None:
        """Show windows and the failures before them, and write the windows to the target.

        As rows and lines they take several times the memory, so there are not many at a time.
        """
        for start in range(0, max(1, len(windows)), _MOST_WINDOWS):
            some = windows[start : start + _MOST_WINDOWS]
            if some or self._failures:
                part = StreamPart(self._stream.schema, some, self._failures[:])
                self._failures.clear()
                await self._take(part)
            if self._delivery.writer is not None:
                await self._delivery.writer.put(some)

    async def flush(self) -> None:
        """Write all waiting windows to the target."""
        if self._delivery.writer is not None:
            await self._delivery.writer.flush()


def _check_output(form: str, to: str | None) -> None:
    """Raise UsageError for an output that excludes the target of windows."""
    if form != "text" and to == STDOUT:
        raise UsageError(f"--to - and --output {form} both write to standard output")
    if form not in ("text", "jsonl") and to is None:
        raise UsageError(
            f"--output {form} has no place for the windows of an endless stream: name a target "
            "for them with --to, or write --output jsonl, in which each window is an event"
        )
