"""The part of the live page about this moment: percentage, time left, recent rates, memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.cli.display.progress_lines import (
    cluster_facts,
    format_lag,
    queue_facts,
    slow_text,
)
from asyncbatch.cli.render.html_parts import cards, section, shown
from asyncbatch.core.units import (
    format_count,
    format_rate,
    format_remaining,
    format_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.display.progress_lines import Pace
    from asyncbatch.pipeline.run import Snapshot
    from asyncbatch.pipeline.stream.run import StreamSnapshot

_Count = tuple[str, str, str]  # the name, the value, and a remark about it
_WINDOW_SECONDS = 10.0  # as the rates of `PaceMeter`
_RECENTLY = f"in the last {_WINDOW_SECONDS:.0f} s"


class _StreamSample(NamedTuple):
    elapsed_s: float
    events: int
    bytes: int


class StreamPace:
    """Measures the rates of one stream over its last seconds, from snapshot to snapshot."""

    def __init__(self) -> None:
        self._samples = deque([_StreamSample(0.0, 0, 0)])

    def measure(self, snapshot: StreamSnapshot) -> tuple[float, float]:
        """Return the events and the bytes per second."""
        samples = self._samples
        now = _StreamSample(snapshot.elapsed_s, snapshot.read, snapshot.bytes)
        samples.append(now)
        while len(samples) > 2 and now.elapsed_s - samples[0].elapsed_s > _WINDOW_SECONDS:
            samples.popleft()
        seconds = (now.elapsed_s - samples[0].elapsed_s) or 1e-9
        return (now.events - samples[0].events) / seconds, (now.bytes - samples[0].bytes) / seconds


def run_progress(snapshot: Snapshot, pace: Pace, noun: str) -> str:
    """Return the section about the progress of a run. `noun` is that of an input."""
    text = _bar(pace) + cards(_run_counts(snapshot, pace, noun))
    if snapshot.stages is not None:
        text += f"<p>{shown(queue_facts(snapshot, snapshot.stages))}</p>\n"
    if snapshot.crew is not None:
        text += f"<p>{shown(cluster_facts(snapshot.crew))}</p>\n"
    if snapshot.slow:
        text += f'<p class="note">{shown(slow_text(snapshot.slow))}</p>\n'
    return section("progress", "Now", text)


def _bar(pace: Pace) -> str:
    """Return the bar of progress. Without a value, it is of an unknown length."""
    value = "" if pace.fraction is None else f' value="{pace.fraction:.4f}"'
    return f'<progress aria-label="Finished part of the run"{value}></progress>\n'


def _number(rate: float) -> str:
    """Return a rate without its unit, which is the name of the count."""
    return format_rate(rate, "one").partition(" ")[0]


def _run_counts(snapshot: Snapshot, pace: Pace, noun: str) -> Iterator[_Count]:
    expected = snapshot.expected
    left = "" if pace.seconds_left is None else f"{format_remaining(pace.seconds_left)} left"
    if expected is None or not expected.is_complete:
        left = "the inputs are being counted" if expected is not None else ""
    if expected is not None or pace.percent is not None:  # a run that watches has no end
        yield "finished", pace.percent or "?", left
    known = ""
    if expected is not None:
        more = "" if expected.is_complete else "+"
        known = f"of {max(expected.files, snapshot.tally.files):,}{more}"
    yield f"{noun}s", f"{snapshot.tally.files:,}", known
    yield f"{noun}s a second", _number(pace.files), _RECENTLY
    yield "records a second", _number(pace.records), _RECENTLY
    yield "bytes a second", f"{format_size(pace.bytes)}/s", _RECENTLY
    workers = snapshot.worker_memory_bytes
    more = f"{format_size(workers)} of it in workers" if workers else ""
    yield "memory", format_size(snapshot.memory_bytes + workers), more
    yield "in flight", format_count(snapshot.in_flight, "batch"), ""


def stream_progress(snapshot: StreamSnapshot, pace: tuple[float, float]) -> str:
    """Return the section about the progress of a stream."""
    events, size = pace
    counts = [
        ("events a second", _number(events), _RECENTLY),
        ("bytes a second", f"{format_size(size)}/s", _RECENTLY),
        *(
            [("watermark", format_lag(snapshot.lag), "against the clock")]
            if snapshot.lag is not None
            else []
        ),
        ("memory", format_size(snapshot.memory.current), "of all processes"),
    ]
    return section("progress", "Now", cards(counts))
