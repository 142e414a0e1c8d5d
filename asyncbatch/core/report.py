"""The reports of a run and of a stream, and their sections."""

from __future__ import annotations

import heapq
import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from msgspec import Struct, field, structs

from asyncbatch.core.batches import SOURCE_SPAN
from asyncbatch.core.records import Failure, MissingNames
from asyncbatch.core.system import Memory
from asyncbatch.core.tally import FailureGroup, StreamTally, Tally, tally_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.tally import FailureBudget

# done: all inputs have ended; failed: no input could be used; limited: the limit of records was
# reached; interrupted: the run ended first.
SourceState = Literal["waiting", "reading", "done", "limited", "failed", "interrupted"]


# When reports are merged, the state that comes later in this list counts.
_STATE_ORDER: list[SourceState] = ["failed", "done", "limited", "waiting", "reading", "interrupted"]


def new_run_id() -> str:
    """Return an id for a run."""
    return os.urandom(6).hex()


@cache
def process_run_id() -> str:
    """Return the id of the run of this process, for its log, reports and history.

    A program may run several jobs in one process: only the command line uses it.
    """
    return new_run_id()


class Traffic(Struct, frozen=True):
    """The number of pages received from a server, and of requests for them."""

    pages: int = 0
    requests: int = 0
    expected_pages: int | None = None  # of all inputs, if the server has told it


class SourceReport(Struct):
    """The counts of one source."""

    name: str
    type: str
    state: SourceState = "waiting"
    tally: Tally = field(default_factory=Tally)
    found: int = 0  # inputs known so far; all of them if `is_complete`
    is_complete: bool = False
    expected: int | None = None  # all inputs, counted ahead of the search; None if unknown
    extracted: int = 0  # records read, also those that are not loaded yet
    traffic: Traffic | None = None  # None if the source has no server

    @property
    def input_noun(self) -> str:
        """The noun for an input of this source."""
        return {"files": "file", "http": "URL"}.get(self.type, "input")

    def update_state(self, *, is_over: bool, limit: int | None) -> None:
        """Update `state`. `limit` is the maximum number of records."""
        tally = self.tally
        if limit is not None and tally.read >= limit:
            self.state = "limited"
        elif self.is_complete and tally.files >= self.found:
            self.state = "failed" if self.found and tally.failed == tally.files else "done"
        elif is_over:
            self.state = "interrupted"
        elif tally.files or self.extracted or (self.traffic and self.traffic.requests):
            self.state = "reading"


class SinkReport(Struct):
    """The target of the rows. Its names contain no secrets.

    `mode` and `key` apply to tables only. `rejected` counts rejected rows.
    """

    to: str
    table: str | None = None
    mode: str | None = None
    key: tuple[str, ...] = ()
    rejected: int = 0

    @property
    def display_name(self) -> str:
        """The name of the target in messages."""
        return f"{self.table} of {self.to}" if self.table else self.to


def merge_sources(sources: Iterable[SourceReport]) -> list[SourceReport]:
    """Return one report for all sources of the same name and type, in order.

    The state is the worst state, except `failed`: that requires that the source failed in every
    report.
    """
    merged: dict[tuple[str, str], SourceReport] = {}
    for source in sources:
        known = merged.setdefault((source.name, source.type), source)
        if known is source:
            continue
        known.tally += source.tally
        if known.traffic and source.traffic:
            known.traffic = Traffic(
                known.traffic.pages + source.traffic.pages,
                known.traffic.requests + source.traffic.requests,
            )
        known.state = max(known.state, source.state, key=_STATE_ORDER.index)
    return list(merged.values())


def merge_sinks(sinks: Sequence[SinkReport | None]) -> SinkReport | None:
    """Return the common report of the sinks, or None if they differ."""
    first = sinks[0]
    if first is None:
        return None
    rejected = 0
    for sink in sinks:
        if sink is None or structs.replace(sink, rejected=first.rejected) != first:
            return None
        rejected += sink.rejected
    return structs.replace(first, rejected=rejected)


class ClusterStatus(Struct, frozen=True):
    """The workers of a cluster."""

    workers: int
    threads: int
    workers_left: int  # workers that have left the cluster
    tasks: int
    busy_s: float  # seconds that the workers spent on the finished tasks
    peak_memory_bytes: int  # of the processes that we start beside the Dask workers


class StageProgress(Struct, frozen=True):
    """The progress of each stage of a run."""

    processed: Tally  # counts of the workers; its `written` is the rows made
    sources: list[SourceReport]
    waiting: int  # pages that no worker has taken yet
    lanes: int  # the limit of batches in flight


RunStatus = Literal["success", "partial", "failed", "interrupted"]

SCHEMA_VERSION = 1
MAX_LISTED_FAILURES = 1000  # failures that the machine-readable report lists; it counts the rest
MAX_SLOWEST_FILES = 5
_MAX_GROUPS = 2000  # groups of equal failures that are kept, to be folded in the summary
_FailureOrder = tuple[int, int, int]  # negative file, record, running number


class SlowFile(NamedTuple):
    """One of the slowest files of a run."""

    elapsed_ms: float
    file: str


class Report(Struct):
    """The report of a run, updated while it runs. Times are in seconds."""

    # the number of failures kept, the first ones in input order
    failure_limit: float = MAX_LISTED_FAILURES
    slowest_limit: int = MAX_SLOWEST_FILES  # the number of files in `slowest`
    run_id: str | None = None  # of a run of the command line
    workers: int | None = None  # the most processes that worked at once; None: not yet known
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    elapsed_s: float = 0.0
    memory_bytes: int = 0  # of all processes, when it was last measured
    peak_memory_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    slowest: list[SlowFile] = field(default_factory=list)
    is_plan: bool = False  # a dry run: the succeeded files are found, but not read
    interrupted: bool = False
    over_budget: bool = False
    target: str | None = None  # the target of the rows; its loss during the run is a failure too
    target_lost: bool = False
    error: str | None = None  # the reason why the run could not begin, or not go on
    discarded: str | None = None  # the reason why the written rows do not count
    notes: list[str] = field(default_factory=list)  # remarks for the user
    settings: dict[str, str] = field(default_factory=dict)  # of the job, without secrets
    # in the order of the job, if the run reports its sources
    sources: list[SourceReport] = field(default_factory=list)
    sink: SinkReport | None = None
    crew: ClusterStatus | None = None  # the cluster that did the work
    profile: Struct | None = None  # the summary of the profile that the run made
    failure_count: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # the number of failures of each kind
    # by file, kind and message: the order of the first of these failures, and the group
    groups: dict[tuple[str, str, str], tuple[_FailureOrder, FailureGroup]] = field(
        default_factory=dict
    )
    # a heap of the kept failures, the last one first: negative file, record, running number
    kept: list[tuple[int, int, int, Failure]] = field(default_factory=list)

    # by the number of the source: the names of settings that its rejected records lacked
    missing: dict[int, MissingNames] = field(default_factory=dict)

    @property
    def status(self) -> RunStatus:
        """The status of the run."""
        if self.interrupted:
            return "interrupted"
        if self.target_lost or self.error is not None:
            return "failed"
        if not self.tally.failures:
            return "success"
        return "failed" if self.tally.failed == self.tally.files else "partial"

    @property
    def input_noun(self) -> str:
        """The noun for an input: "file", unless other sources were read."""
        return "file" if all(source.type == "files" for source in self.sources) else "input"

    @property
    def failures(self) -> list[Failure]:
        """The kept failures, in input order."""
        return [failure for *_, failure in sorted(self.kept, key=_input_order, reverse=True)]

    @property
    def losses(self) -> list[Failure]:
        """The kept failures of the target and other outputs, which belong to no input."""
        return [failure for number, _, _, failure in self.kept if number > 0]

    def has_failed(self, budget: FailureBudget | None) -> bool:
        """Whether the run failed, in the eyes of its user."""
        if self.over_budget or self.target_lost:
            return True
        return not budget and bool(self.tally.failures)

    def add(self, found: BatchPart) -> None:
        """Add the counts and failures of a part."""
        part, tally = found.part, tally_of(found.part)
        self.tally += tally
        if self.sources:
            self.sources[found.batch.source].tally += tally
        if self.sink is not None:
            self.sink.rejected += sum(failure.kind == "sink" for _, failure in part.rejections)
        if part.missing is not None:
            self.missing.setdefault(found.batch.source, MissingNames()).update(part.missing)
        split = found.batch.split
        page = split.number if split is not None and split.chunk is not None else 0
        for file, failure in part.failures():
            self._keep(file, failure, page)
        limit = self.slowest_limit
        threshold = self.slowest[-1].elapsed_ms if len(self.slowest) == limit else 0.0
        if max(part.elapsed_ms, default=0.0) > threshold:
            slow = heapq.nlargest(limit, zip(part.elapsed_ms, range(len(part)), strict=True))
            slow_files = [SlowFile(ms, found.file(index)) for ms, index in slow]
            self.slowest = heapq.nlargest(limit, [*self.slowest, *slow_files])

    def add_missing_names(self) -> None:
        """Add a note about each name of the settings that no record of a source had."""
        for source, missing in self.missing.items():
            tally = self.sources[source].tally if self.sources else self.tally
            has_matched = tally.passed or tally.dropped or tally.succeeded or tally.skipped
            if missing.note is not None and not has_matched:
                self.notes.append(missing.note)

    def add_retries(self, by_source: Mapping[int, int]) -> None:
        """Add the retries of sources, by the number of the source."""
        self.tally.retries += sum(by_source.values())
        if self.sources:
            for number, retries in by_source.items():
                self.sources[number].tally.retries += retries

    def lose_target(self, message: str, file: str | None = None) -> None:
        """Record that the target, or another output `file`, can no longer be written."""
        if not self.target_lost:  # later errors follow from this one
            self.target_lost = True
            self._keep(-1, Failure(file or self.target or "", "sink", message))

    def discard(self, *, succeeded: bool, can_resume: bool = False, is_new: bool = False) -> None:
        """Record that the target was left unchanged. `can_resume`: a later run can resume.

        `is_new`: there was no target before the run.
        """
        self.tally.written = 0
        for source in self.sources:
            source.tally.written = 0
        ended = not self.interrupted and not self.over_budget and not self.target_lost
        why = "was not a success" if ended and not succeeded else "did not finish"
        what = "was not written" if is_new else "was left as it was"
        self.discarded = f"{self.target} {what}: the run {why}"
        if can_resume:
            self.discarded += " (--resume continues where it ended)"

    def list_failure(self, number: int, failure: Failure) -> None:
        """Add a failure that another report has counted, in the order of `number`."""
        order = -number, 0, 0
        if number < MAX_LISTED_FAILURES:
            self.kept.append((*order, failure))
        self._group(order, failure)

    def add_kinds(self, kinds: Mapping[str, int]) -> None:
        """Add the number of failures of each kind of another report."""
        for kind, count in kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count

    @property
    def first_groups(self) -> list[FailureGroup]:
        """The groups of equal failures, in input order of the first of each."""
        in_order = sorted(self.groups.values(), key=lambda one: one[0], reverse=True)
        return [group for _, group in in_order]

    def _keep(self, file: int, failure: Failure, page: int = 0) -> None:
        """Keep a failure if it is among the first. Each `page` restarts record numbers."""
        self.failure_count += 1
        self.kinds[failure.kind] = self.kinds.get(failure.kind, 0) + 1
        record = page * SOURCE_SPAN + (failure.record or 0)
        entry = (-file, -record, -self.failure_count, failure)
        self._group(entry[:3], failure)
        if len(self.kept) < self.failure_limit:
            heapq.heappush(self.kept, entry)
        elif _input_order(entry) > _input_order(self.kept[0]):
            heapq.heapreplace(self.kept, entry)

    def _group(self, order: _FailureOrder, failure: Failure) -> None:
        """Count a failure with the equal ones. Later groups than the kept ones are left out."""
        name = failure.file, failure.kind, failure.message
        known = self.groups.get(name)
        if known is not None:
            known[1].count += 1
            if order > known[0]:
                known[1].first = failure
                self.groups[name] = order, known[1]
        elif len(self.groups) < max(_MAX_GROUPS, self.failure_limit):
            self.groups[name] = order, FailureGroup(failure)


def _input_order(entry: tuple[int, int, int, Failure]) -> tuple[int, int, int]:
    return entry[:3]


StreamStatus = Literal["ended", "stopped", "failed"]


class StreamReport(Struct):
    """The report of a stream, updated while it runs. Its tally counts all runs of the stream."""

    run_id: str | None = None  # of a run of the command line
    workers: int | None = None  # the most processes that worked at once; None: not yet known
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    elapsed_s: float = 0.0
    tally: StreamTally = field(default_factory=StreamTally)
    read: int = 0  # events that this run has read
    bytes: int = 0  # bytes that this run has read
    lag: int | None = None  # microseconds that the watermark is behind the clock
    memory: Memory = Memory(0, 0)
    left: int = 0  # events that had arrived before a stop, and were not processed
    stopped: bool = False  # whether more events might have come
    over_budget: bool = False
    error: str | None = None  # the reason why the stream could not begin, or not go on
    notes: list[str] = field(default_factory=list)  # remarks for the user
    settings: dict[str, str] = field(default_factory=dict)  # of the stream, without secrets

    @property
    def status(self) -> StreamStatus:
        """The status of the stream."""
        if self.error is not None:
            return "failed"
        return "stopped" if self.stopped else "ended"

    @property
    def memory_bytes(self) -> int:
        """The memory of all processes, when it was last measured."""
        return self.memory.current

    @property
    def peak_memory_bytes(self) -> int:
        """The peak memory of all processes."""
        return self.memory.peak

    @property
    def failures(self) -> list[Failure]:
        """The kept rejections, then the kept losses."""
        return [*self.tally.rejections, *self.tally.losses]

    @property
    def failure_count(self) -> int:
        """The number of rejections and losses."""
        return self.tally.rejected + self.tally.lost

    @property
    def kinds(self) -> dict[str, int]:
        """The number of failures of each kind."""
        return self.tally.kinds

    @property
    def groups(self) -> list[FailureGroup]:
        """The kept groups of equal rejections."""
        return self.tally.groups

    first_groups = groups

    def has_failed(self, budget: FailureBudget | None) -> bool:
        """Whether the stream failed, in the eyes of its user."""
        if self.over_budget or self.error is not None or self.tally.refused:
            return True
        return not budget and self.tally.all_rejected

    def lose_target(self, message: str, file: str | None = None) -> None:  # noqa: ARG002 - as of `Report`
        """Record that an output can no longer be written."""
        self.error = self.error or message


AnyReport: TypeAlias = Report | StreamReport
