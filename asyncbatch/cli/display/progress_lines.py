"""The progress of a run or stream: pace, percentage, time left, lines of text."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.progress import LONG_SECONDS
from asyncbatch.core.units import (
    format_count,
    format_rate,
    format_remaining,
    format_seconds,
    format_size,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.core.progress import LongFile
    from asyncbatch.core.report import (
        ClusterStatus,
        SourceReport,
        StageProgress,
        StreamReport,
        Traffic,
    )
    from asyncbatch.pipeline.run import Snapshot
    from asyncbatch.pipeline.stream.run import StreamSnapshot

_MAX_SAMPLES = 1000
_WINDOW_SECONDS = 10.0  # rates are those of the last seconds, not of the whole run
# A file takes as long as these bytes, even if it is empty: 4 us, at 1 GB/s.
_FILE_COST_BYTES = 4096
_MIN_SHOWN_BYTES = 1_000_000  # a run of fewer bytes is over before they say anything
_MAX_SLOW_NAMES = 3
_MORE = ", ..."
_NARROW_WIDTH = 60
_MAX_SECONDS_LEFT = 100 * 3600.0  # an estimate of more is made of too little
_MIN_SECONDS = 0.5  # the time left is not estimated from less


class Pace(NamedTuple):
    """The rates of a run per second, the finished fraction, and the seconds left if known."""

    files: float
    records: float
    bytes: float
    bytes_read: int  # in all, also of files that are not finished
    fraction: float | None
    seconds_left: float | None

    @property
    def percent(self) -> str | None:
        """The finished fraction as text. 100% is the end."""
        if self.fraction is None:
            return None
        return "100%" if self.fraction >= 1 else f"{min(99, round(self.fraction * 100))}%"


class _Sample(NamedTuple):
    elapsed_s: float
    files: int
    records: int
    bytes: int


class PaceMeter:
    """Measures the pace of one run over its last seconds, from snapshot to snapshot."""

    def __init__(self) -> None:
        self._samples = deque([_Sample(0.0, 0, 0, 0)])
        self._has_begun = False

    def measure(self, snapshot: Snapshot) -> Pace:
        """Return the pace at a snapshot, which is later than those before."""
        tally = snapshot.tally if snapshot.stages is None else snapshot.stages.processed
        files = snapshot.tally.files
        samples = self._samples
        # A file that has ended is not at once in the report: its bytes are counted already.
        read = max(snapshot.bytes_read, samples[-1].bytes)
        now = _Sample(snapshot.elapsed_s, files, tally.read, read)
        if not self._has_begun:  # the time before the first batch says nothing
            self._samples = samples = deque([samples[-1]])
            self._has_begun = bool(snapshot.in_flight or files or tally.read)
        samples.append(now)
        if len(samples) > _MAX_SAMPLES:  # nothing happens, perhaps for days
            del samples[1]
        # One step may take longer than the window: the last change stays in it.
        while now.elapsed_s - samples[1].elapsed_s > _WINDOW_SECONDS and samples[1][1:] != now[1:]:
            samples.popleft()
        first = samples[0]
        seconds = (now.elapsed_s - first.elapsed_s) or 1e-9
        by_files, by_records, by_bytes = (
            max(0, new - old) / seconds for old, new in zip(first[1:], now[1:], strict=True)
        )
        fraction = left = None
        expected = snapshot.expected
        if expected is not None and expected.is_complete and expected.files:
            done, total, rate = files, expected.files, by_files
            # Skipped inputs are not read.
            if expected.bytes and snapshot.stages is None and not snapshot.tally.skipped:
                done = now.bytes + files * _FILE_COST_BYTES
                total = expected.bytes + expected.files * _FILE_COST_BYTES
                rate = by_bytes + by_files * _FILE_COST_BYTES
            fraction = 1.0 if files >= expected.files else min(done / total, 0.999)
            if rate and seconds >= _MIN_SECONDS and fraction < 1:
                left = max(0, total - done) / rate
                left = left if left <= _MAX_SECONDS_LEFT else None
        return Pace(by_files, by_records, by_bytes, read, fraction, left)


def stage_counts(snapshot: Snapshot, stages: StageProgress) -> list[tuple[str, int]]:
    """Return the number of records per stage, then of rejected and dropped ones."""
    worked, tally = stages.processed, snapshot.tally
    counts = [
        ("records extracted", worked.read),
        ("transformed", worked.passed),
        ("loaded", tally.written),
        ("rejected", max(worked.rejected, tally.rejected)),
    ]
    return [*counts, ("dropped", worked.dropped)] if worked.dropped else counts


def source_facts(source: SourceReport) -> list[str]:
    """Return the progress of a source: its state, pages, records, inputs and failures."""
    noun, ended = source.input_noun, source.tally.files
    pages = [pages_done(source.traffic)] if source.traffic else []
    known = source.found if source.is_complete else source.expected
    total = f"{source.found:,}+" if known is None else f"{known:,}"
    one = (source.found if known is None else known) == 1
    inputs = f"{ended:,} of {total} {noun}{'' if one else 's'}"
    failed = [f"{source.tally.failed:,} failed"] if source.tally.failed else []
    return [source.state, *pages, format_count(source.extracted, "record"), inputs, *failed]


def pages_done(traffic: Traffic) -> str:
    """Return the number of received pages, and of all pages if the server has told it."""
    expected = traffic.expected_pages
    if expected is None or expected < traffic.pages:
        return format_count(traffic.pages, "page")
    return f"{traffic.pages:,} of {format_count(expected, 'page')}"


def queue_facts(snapshot: Snapshot, stages: StageProgress) -> str:
    """Return the number of pages, batches and rows in the queues between the stages."""
    refused = snapshot.tally.rejected - stages.processed.rejected
    rows = max(0, stages.processed.written - snapshot.tally.written - max(0, refused))
    in_flight = min(snapshot.in_flight, stages.lanes)  # an ended input may not be settled yet
    flight = f"{in_flight:,} of at most {format_count(stages.lanes, 'batch')} in flight"
    waiting = f"{format_count(stages.waiting, 'page')} waiting, " if _has_feeds(stages) else ""
    return f"{waiting}{flight}, {format_count(rows, 'row')} to load"


def _has_feeds(stages: StageProgress) -> bool:
    return any(source.type != "files" for source in stages.sources)


def files_done(snapshot: Snapshot) -> str:
    """Return the number of finished files, and of all files as far as it is known."""
    ended, expected = snapshot.tally.files, snapshot.expected
    if snapshot.is_watching:
        return f"watching: {_watched_files(snapshot)}"
    if expected is None:
        return format_count(ended, "file")
    if not expected.is_complete:
        return f"{ended:,} of {max(expected.files, ended):,}+ files"
    return f"{ended:,} of {format_count(expected.files, 'file')}"


def _watched_files(snapshot: Snapshot) -> str:
    """Return the number of files, and the time of the last one."""
    if snapshot.last_file_at is None:
        return "no file yet"
    last = time.strftime("%H:%M:%S", time.localtime(snapshot.last_file_at))
    return f"{format_count(snapshot.tally.files, 'file')}, last {last}"


def bytes_done(snapshot: Snapshot, pace: Pace) -> str | None:
    """Return the bytes that were read, and all bytes; None if these are unknown, or few."""
    total = snapshot.expected.bytes if snapshot.expected else None
    if total is None or total < _MIN_SHOWN_BYTES:
        return None
    return f"{format_size(min(pace.bytes_read, total))} of {format_size(total)}"


def progress_line(snapshot: Snapshot, pace: Pace | None = None) -> str:
    """Return the progress of the run in one line."""
    pace = pace or PaceMeter().measure(snapshot)
    if snapshot.stages is not None:
        return _stages_line(snapshot, snapshot.stages, pace)
    tally = snapshot.tally
    percent = f" ({pace.percent})" if pace.percent else ""
    parts = [
        *([cluster_facts(snapshot.crew)] if snapshot.crew else []),
        files_done(snapshot) + percent,
        bytes_done(snapshot, pace),
        None if pace.seconds_left is None else f"{format_remaining(pace.seconds_left)} left",
        format_count(tally.failures, "failure"),
        format_rate(pace.files, "file"),
        format_rate(pace.records, "record"),
        f"{format_size(pace.bytes)}/s",
        memory_text(snapshot),
    ]
    line = ", ".join(filter(None, parts))
    return f"{line}; {slow_text(snapshot.slow)}" if snapshot.slow else line


def slow_text(slow: Sequence[LongFile], width: int | None = None) -> str:
    """Return the number of files that take long, and the first of them with their seconds.

    With a `width`, only as many names are shown as fit into it, of the first at least its end.
    """
    count, seconds = format_count(len(slow), "file"), f"{LONG_SECONDS:.0f} s: "
    is_narrow = width is not None and width < _NARROW_WIDTH
    line = f"{count} > {seconds}" if is_narrow else f"{count} for more than {seconds}"
    for number, file in enumerate(slow):
        name, ending = printable(file.name), f" ({format_remaining(file.seconds)})"
        left = None if width is None else max(0, width - len(line) - len(ending))
        if left is not None and number + 1 < len(slow):
            left = max(0, left - len(_MORE))
        if not number and left is not None and len(name) > left:
            name = f"…{name[len(name) - max(1, left - 1) :]}"
        shown = f", {name}" if number else name
        if number == _MAX_SLOW_NAMES or (number and left is not None and len(shown) > left):
            return line + _MORE
        line += shown + ending
    return line


def _stages_line(snapshot: Snapshot, stages: StageProgress, pace: Pace) -> str:
    counts = [f"{number:,} {word}" for word, number in stage_counts(snapshot, stages)]
    sources = [
        f"{printable(source.name)}: {', '.join(source_facts(source))}" for source in stages.sources
    ]
    rest = [record_rates(pace), queue_facts(snapshot, stages), memory_text(snapshot)]
    rest += [cluster_facts(snapshot.crew)] if snapshot.crew else []
    rest += [slow_text(snapshot.slow)] if snapshot.slow else []
    watched = [files_done(snapshot)] if snapshot.is_watching else []
    return "; ".join([*watched, ", ".join(counts), *sources, *rest])


def record_rates(pace: Pace) -> str:
    """Return the rates of records and bytes."""
    return f"{format_rate(pace.records, 'record')}, {format_size(pace.bytes)}/s"


def cluster_facts(cluster: ClusterStatus) -> str:
    """Return the number of workers, and of workers that left the cluster."""
    left = f" ({cluster.workers_left:,} left)" if cluster.workers_left else ""
    return f"{format_count(cluster.workers, 'worker')}{left}"


def memory_text(snapshot: Snapshot) -> str:
    """Return the memory of this process, and of its workers if there are any."""
    ours = f"{format_size(snapshot.memory_bytes)} memory"
    if not snapshot.worker_memory_bytes:
        return ours
    return f"{ours} + {format_size(snapshot.worker_memory_bytes)} in workers"


# The seconds of a run, up to which its lines come at an interval of seconds.
_INTERVALS = ((60.0, 10.0), (300.0, 30.0), (float("inf"), 60.0))


class PlainProgress:
    """A display that writes a progress line now and then, as `line` returns it.

    A run that ends before the first line is due gets none. `clock` returns seconds.
    """

    # The inputs are counted some seconds before the first line, and not in shorter runs.
    count_after: float | None = 5.0

    def __init__(
        self,
        write: Callable[[str], None],
        line: Callable[[Any], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._line, self._clock = write, line or _RunLine(), clock
        self._started_at = self._last = clock()
        self._shown_file_at: float | None = -1.0  # see `_has_news`

    def show(self, snapshot: Any) -> None:
        """Write a progress line if the last one is old enough."""
        now = self._clock()
        line = self._line(snapshot)  # it sees each snapshot, because rates are recent ones
        elapsed = now - self._started_at
        interval = next(seconds for until, seconds in _INTERVALS if elapsed <= until)
        if now - self._last >= interval and self._has_news(snapshot):
            self._last = now
            self._write(line)

    def _has_news(self, snapshot: Any) -> bool:
        """Whether a run that waits for files has had one since its last line."""
        if not getattr(snapshot, "is_watching", False):
            return True
        shown, self._shown_file_at = self._shown_file_at, snapshot.last_file_at
        return bool(snapshot.last_file_at != shown)

    def log(self, line: str) -> None:
        """Write a line at once."""
        self._write(line)

    def suspend(self) -> None:
        """Do nothing: the lines stay on the screen."""

    close = suspend


class _RunLine:
    """The line about a run, with its recent pace."""

    def __init__(self) -> None:
        self._meter = PaceMeter()

    def __call__(self, snapshot: Snapshot) -> str:
        return progress_line(snapshot, self._meter.measure(snapshot))


def stream_line(snapshot: StreamSnapshot) -> str:
    """Return the progress of a stream in one line."""
    return ", ".join(stream_facts(snapshot))


def stream_facts(snapshot: StreamSnapshot | StreamReport) -> Iterator[str]:
    """Yield the progress of a stream as short texts: counts, rate, lag, memory."""
    tally, seconds = snapshot.tally, snapshot.elapsed_s or 1e-9
    yield format_count(tally.read, "event")
    yield format_rate(snapshot.read / seconds, "event")
    yield format_count(tally.windows, "window")
    if snapshot.lag is not None:
        yield f"watermark {format_lag(snapshot.lag)}"
    yield f"{tally.late:,} late"
    yield f"{tally.rejected:,} rejected"
    if tally.refused:
        yield f"{tally.refused:,} refused"
    if tally.lost:
        yield f"{tally.lost:,} lost"
    yield f"{format_size(snapshot.memory.current)} memory"


def format_lag(micros: int) -> str:
    """Return the distance of the watermark to the clock. `micros` is in microseconds."""
    return f"{format_seconds(abs(micros) / 1e6)} {'behind' if micros >= 0 else 'ahead'}"
