"""What is shown of a stream while it goes on, and at its end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from asyncbatch.cli.output import is_terminal
from asyncbatch.cli.plain import LINE_EVERY_SECONDS
from asyncbatch.cli.streams import stdout
from asyncbatch.words import count, duration, location, printable, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.budget import FailureBudget
    from asyncbatch.records import Failure
    from asyncbatch.streams.run import StreamSnapshot
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window


class StreamDisplay(Protocol):
    """Shows how far a stream is."""

    def takes(self, windows: Sequence[Window]) -> bool:
        """Show windows that are over; tell if no other output has to."""
        ...

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Show a snapshot, or not yet."""
        ...

    def tell(self, line: str) -> None:
        """Say something that must not be missed."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


def make_display(stream: Stream, *, quiet: bool, stdout_is_taken: bool = False) -> StreamDisplay:
    """Return a table on a terminal, else a line on stderr now and then; nothing if `quiet`."""
    if is_terminal(stdout().fileno()) and not (quiet or stdout_is_taken):
        from asyncbatch.cli.console_stream import LiveWindows  # noqa: PLC0415 - rich takes a while

        return LiveWindows(stream)
    return PlainStream(quiet=quiet)


class PlainStream:
    """Writes a line now and then on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last = time.monotonic()

    def takes(self, windows: Sequence[Window]) -> bool:  # noqa: ARG002 - part of the contract
        """Leave windows to standard output."""
        return False

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Write how far the stream is, if it is time."""
        now = time.monotonic()
        if not self._quiet and not last and now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            sys.stderr.write(", ".join(facts(snapshot)) + "\n")
            sys.stderr.flush()

    def tell(self, line: str) -> None:
        """Write a line on stderr, also if it is to be quiet."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the display; there is nothing to take away."""


def facts(snapshot: StreamSnapshot) -> Iterator[str]:
    """Yield how far a stream is, in a few words each."""
    tally, seconds = snapshot.tally, snapshot.elapsed_s or 1e-9
    yield count(tally.read, "event")
    yield f"{snapshot.read / seconds:,.0f} events/s"
    yield count(tally.windows, "window")
    if snapshot.lag is not None:
        yield f"watermark {lag(snapshot.lag)}"
    yield f"{tally.late:,} late"
    yield f"{tally.rejected:,} rejected"
    if tally.refused:
        yield f"{tally.refused:,} refused"
    if tally.lost:
        yield f"{tally.lost:,} lost"
    yield f"{size(snapshot.memory.current)} memory"


def loss_line(failure: Failure) -> str:
    """Return what is said when something of a source could not be read."""
    return f"lost  {location(failure)}: {failure.kind}: {printable(failure.message)}"


def lag(micros: int) -> str:
    """Return how far the watermark is from the clock."""
    return f"{duration(abs(micros) / 1e6)} {'behind' if micros >= 0 else 'ahead'}"


def summary_lines(
    snapshot: StreamSnapshot, *, stopped: bool, budget: FailureBudget | None
) -> Iterator[str]:
    """Yield what is said at the end: rejections, counts, and of a `budget` that was exceeded."""
    tally, seconds = snapshot.tally, snapshot.elapsed_s or 1e-9
    for failure in tally.rejections:
        yield f"rejected  {location(failure)}: {failure.kind}: {printable(failure.message)}"
    if more := tally.rejected - len(tally.rejections):
        yield f"... and {more:,} more (--dead-letter keeps them all)"
    for reason in tally.refusals:
        yield f"refused  {printable(reason)}"
    if more := tally.refused - len(tally.refusals):
        yield f"... and {more:,} more"
    if more := tally.lost - len(tally.losses):
        yield f"... and {more:,} more times something could not be read"
    verdict = "Stopped after" if stopped else "Processed"
    since = f", {tally.read:,} since the stream began" if tally.read != snapshot.read else ""
    yield f"{verdict} {count(snapshot.read, 'event')} in {duration(snapshot.elapsed_s)}{since}"
    parts = {"in windows": tally.events, "dropped": tally.dropped, "late": tally.late}
    parts["rejected"] = tally.rejected
    split = [f"{number:,} {word}" for word, number in parts.items() if number]
    if tally.late_in_part:
        split.append(f"{tally.late_in_part:,} late for some of their windows")
    yield f"  events   {', '.join(split) or 'none'}"
    if snapshot.left:
        yield f"  left     {count(snapshot.left, 'event')} that had come, and were not worked on"
    if tally.lost:
        yield f"  lost     {count(tally.lost, 'time')} (events that could not be read: see above)"
    refused = f", {tally.refused:,} refused by the target" if tally.refused else ""
    yield f"  windows  {tally.windows:,} (one for each key){refused}"
    yield f"  rate     {snapshot.read / seconds:,.0f} events/s, {size(snapshot.bytes / seconds)}/s"
    yield f"  memory   {size(snapshot.memory.peak)} at the peak"
    if budget is not None:
        failures = count(tally.failures, "failure")
        yield f"Stopped: {failures}, more than the {budget} that --max-failures allows"
