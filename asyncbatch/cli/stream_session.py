"""A stream from start to exit status: signals, limits, windows out, the summary."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from asyncbatch.cli import exit_codes
from asyncbatch.cli.output import to_stdout
from asyncbatch.cli.stream_display import StreamSnapshot, make_display, summary_lines
from asyncbatch.cpus import usable_cpus
from asyncbatch.errors import AsyncbatchError, UsageError
from asyncbatch.executors.wire import STOP_SIGNALS
from asyncbatch.memory import Memory, measure, measure_all
from asyncbatch.streams.crew import Crew
from asyncbatch.streams.lines import window_lines
from asyncbatch.streams.side_file import SideFile
from asyncbatch.streams.stream import Stream
from asyncbatch.windows.events import TooManyKeysError

if TYPE_CHECKING:
    from asyncbatch.budget import FailureBudget
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.streams.sources import ByteSource
    from asyncbatch.windows.events import Window

_SNAPSHOT_SECONDS = 0.25
_TICK_SECONDS = 0.05
"""How often the clock is looked at where it ends windows."""
_MUCH = 64 * 1024
"""Fewer bytes at a time are no work for a worker: most likely somebody waits for their windows."""
_ENOUGH = 128
"""How many times in a row much must come before workers are started: after 8 to 16 MiB."""
_GRACE_SECONDS = 8.0
"""Time to hand over what is open after a stop signal."""


class StreamSession:
    """Carries one stream through, until its end, a limit or a signal. Raises UsageError.

    `duration` is in microseconds. The first stop signal ends the stream cleanly; the second, or
    a reader that does not take what is open, ends the process where it stands.
    """

    def __init__(
        self,
        settings: StreamSettings,
        source: ByteSource,
        *,
        name: str,
        late: str | None,
        dead_letter: str | None,
        max_events: int | None,
        duration: int | None,
        budget: FailureBudget | None,
        workers: int | None,
        quiet: bool,
    ) -> None:
        files = [SideFile(path) if path else None for path in (late, dead_letter)]
        late_file, dead_file = files
        self._source, self._budget = source, budget
        self._stream = Stream(
            settings,
            name,
            reject=dead_file.write if dead_file else None,
            late=late_file.write if late_file else None,
            max_events=max_events,
        )
        self._files = [file for file in files if file is not None]
        self._runs_programs = bool(settings.transforms)
        self._ticks = settings.time is None or settings.idle is not None
        self._duration = None if duration is None else duration / 1e6
        self._quiet = quiet
        self._max_workers = usable_cpus() - 1 if workers is None else workers
        self._crew: Crew | None = None
        self._in_a_row = 0
        """How many times in a row much has come at once."""
        self._began, self._peak = 0.0, 0
        self._signal: int | None = None
        self._display = make_display(self._stream, quiet=quiet)
        for file in self._files:
            file.open()

    def carry_out(self) -> int:
        """Run to the end and return the exit status."""
        try:
            return asyncio.run(self._session())
        except TooManyKeysError as error:
            return self._fail(
                f"a window has more than {error.most:,} keys: allow more with --max-keys, or put "
                "the others together with --overflow-key"
            )
        except UsageError as error:
            return self._fail(str(error), exit_codes.USAGE)
        except (AsyncbatchError, OSError) as error:
            return self._fail(f"could not go on: {error}")

    def _fail(self, message: str, code: int = exit_codes.FAILURES) -> int:
        self._display.close()
        print(f"Error: {message}", file=sys.stderr)  # noqa: T201 - the command's last word
        return code

    async def _session(self) -> int:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it for SIGHUP
                loop.add_signal_handler(number, self._on_signal, number)
        self._began = time.monotonic()
        ticker = loop.create_task(self._show())
        try:
            is_over = await self._consume()
            await self._emit(self._stream.finish(partial=not is_over))
        except BrokenPipeError:
            self._leave(exit_codes.CLOSED_OUTPUT)
        finally:
            ticker.cancel()
            self._source.close()
            for file in self._files:
                file.close()
        return self._conclude(is_over=is_over)

    async def _consume(self) -> bool:
        """Take events until there is a reason to stop, and what workers then still have."""
        try:
            is_over = await self._take_all()
            await self._catch_up()
        finally:
            if self._crew is not None:
                await self._crew.close()
        if is_over:
            await self._emit(await self._taken(None))
        return is_over and not self._stream.is_full

    async def _catch_up(self) -> None:
        """Have all results of workers taken."""
        while self._crew is not None and self._crew.is_busy:
            await self._emit(await self._crew.take())

    async def _take_all(self) -> bool:
        """Take events until there is a reason to stop; tell if it was that there are no more."""
        stream, source = self._stream, self._source
        while self._signal is None and not self._is_over_budget() and not stream.is_full:
            left = self._seconds_left()
            if left is not None and left <= 0:
                break
            timeout = min(_TICK_SECONDS, left or _TICK_SECONDS) if self._ticks else left
            is_busy = self._crew is not None and self._crew.is_busy
            data = await source.read(0 if is_busy else timeout)
            if data == b"":
                return True
            if data is None:
                await self._catch_up()
            else:
                await self._hand_on(data)
                await asyncio.sleep(0)  # a source that always has more must not keep out signals
            if self._ticks:
                await self._emit(stream.tick())
        return False

    async def _hand_on(self, data: bytes) -> None:
        """Take bytes, with the help of workers once there is much to do."""
        crew = self._crew
        if not self._max_workers or not self._stream.can_fold:
            await self._emit(await self._taken(data))
            return
        lines = self._stream.cut(data)
        if len(lines) < _MUCH:
            self._in_a_row = 0
            await self._catch_up()
            await self._emit(self._stream.take(lines))
            return
        self._in_a_row += 1
        if crew is None and self._in_a_row >= _ENOUGH:
            crew = self._crew = Crew(self._stream, self._max_workers)
            await crew.start()
        if crew is None or not crew.is_ready:
            await self._emit(self._stream.take(lines))
            return
        while crew.has_result:
            await self._emit(await crew.take())
        crew.send(lines)

    async def _taken(self, data: bytes | None) -> list[Window]:
        """Take bytes, or None for the end: off the event loop if it may take long."""
        stream = self._stream
        if not self._runs_programs:
            return stream.end() if data is None else stream.feed(data)
        if data is None:
            return await asyncio.to_thread(stream.end)
        return await asyncio.to_thread(stream.feed, data)

    async def _emit(self, windows: list[Window]) -> None:
        if windows and not self._display.takes(windows):
            await to_stdout(window_lines(self._stream, windows))

    def _seconds_left(self) -> float | None:
        if self._duration is None:
            return None
        return self._began + self._duration - time.monotonic()

    def _is_over_budget(self, *, final: bool = False) -> bool:
        tally = self._stream.tally
        return self._budget is not None and self._budget.is_spent(
            tally.failures, tally.read, final=final
        )

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(_SNAPSHOT_SECONDS)
            self._display.show(self._snapshot())

    def _snapshot(self) -> StreamSnapshot:
        return StreamSnapshot(
            self._stream.tally,
            time.monotonic() - self._began,
            self._stream.lag,
            self._memory(),
        )

    def _memory(self) -> Memory:
        ours, theirs = measure(), measure_all(self._crew.pids if self._crew else ())
        self._peak = max(self._peak, ours.peak + theirs.peak)
        return Memory(ours.current + theirs.current, self._peak)

    def _conclude(self, *, is_over: bool) -> int:
        over_budget = self._is_over_budget(final=True)
        snapshot = self._snapshot()
        self._display.show(snapshot, last=True)
        self._display.close()
        if not self._quiet:
            budget = self._budget if over_budget else None
            for line in summary_lines(snapshot, stopped=not is_over, budget=budget):
                print(line, file=sys.stderr)  # noqa: T201 - the summary
        return exit_codes.FAILURES if over_budget else exit_codes.SUCCESS

    def _on_signal(self, number: int) -> None:
        if self._signal is not None:
            self._leave(exit_codes.of_signal(self._signal))
        self._signal = number
        self._source.wake()
        asyncio.get_running_loop().call_later(
            _GRACE_SECONDS, self._leave, exit_codes.of_signal(number)
        )

    def _leave(self, code: int) -> NoReturn:
        """End the process now."""
        self._display.close()
        os._exit(code)
