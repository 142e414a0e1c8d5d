"""The schema of JSON reports: one declaration to write and to read them.

The order of the fields is that of the text. Fields are added, never renamed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from asyncbatch.core.records import Failure
from asyncbatch.core.report import (
    SCHEMA_VERSION,
    RunStatus,
    SinkReport,
    SourceReport,
    SourceState,
    StreamStatus,
    Traffic,
)
from asyncbatch.core.tally import Tally

_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_Rate = Annotated[float, Meta(ge=0)]
# A name of ours, which outputs show as it is. Later versions may have new ones.
_Word = Annotated[str, Meta(pattern=r"\A[a-z][a-z_-]*\Z")]
_Instant = Annotated[str, Meta(pattern=r"\A[0-9-]{10}T[0-9:.]{8,15}(Z|[+-][0-9:]{5})\Z")]
INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # of `_Instant`, as reports have always had it


class InputCounts(Struct, kw_only=True):
    """The counts of files, or of other inputs."""

    total: _Count
    succeeded: _Count
    partial: _Count
    failed: _Count
    skipped: _Count
    bytes: _Count
    planned: _Count | UnsetType = UNSET  # of a dry run: files that a run would process


class RecordCounts(Struct, kw_only=True):
    """The counts of records."""

    read: _Count
    passed: _Count = 0
    dropped: _Count
    rejected: _Count
    written: _Count
    # Rows, or outputs, of gone files that a mirror has deleted or marked, if any.
    deleted: _Count | UnsetType = UNSET


class RunRates(Struct, kw_only=True):
    """The average rates of a run."""

    files_per_s: _Rate = 0.0
    records_per_s: _Rate = 0.0
    bytes_per_s: _Rate = 0.0


class SlowFileFields(Struct):
    """One of the slowest files."""

    file: str
    elapsed_ms: float


class FailureFields(Failure, frozen=True):
    """A failure whose `kind` is any word: a later version may write new kinds."""

    kind: _Word  # type: ignore[assignment]  # see above


class SourceFields(Struct, kw_only=True):
    """The section of one source. A dry run has its rows, too."""

    name: str
    type: _Word
    state: str
    inputs: InputCounts
    records: RecordCounts
    pages: _Count | UnsetType = UNSET
    requests: _Count | UnsetType = UNSET
    retries: _Count
    rows: list[Any] | UnsetType = UNSET
    rows_omitted: _Count | UnsetType = UNSET

    def to_report(self) -> SourceReport:
        """Return the section for a merged report."""
        known = SourceReport(self.name, self.type, _known_state(self.state))
        known.tally = sum_counts(self.inputs, self.records, self.retries)
        if self.pages is not UNSET:
            known.traffic = Traffic(self.pages, self.requests or 0)
        return known


class SinkFields(Struct, kw_only=True):
    """The section of a sink."""

    to: str
    table: str | None
    mode: _Word | None
    key: tuple[str, ...]
    written: _Count = 0
    rejected: _Count

    def to_report(self) -> SinkReport:
        """Return the section for a merged report."""
        return SinkReport(self.to, self.table, self.mode, self.key, self.rejected)


class DaskFields(Struct, kw_only=True):
    """The section of a cluster."""

    workers: _Count
    threads: _Count
    workers_left: _Count
    tasks: _Count
    tasks_s: _Seconds


class _Fields(Struct, kw_only=True):
    """The beginning of each report object; of a line of events, with the name of the event."""

    event: Literal["summary"] | UnsetType = UNSET
    schema_version: int = SCHEMA_VERSION
    command: _Word
    run_id: str | UnsetType = UNSET  # unset in reports of earlier versions, and merged ones
    status: RunStatus | StreamStatus
    started_at: _Instant
    elapsed_s: _Seconds

    @property
    def start(self) -> datetime:
        """The time at which the work began. Raises ValueError."""
        return datetime.fromisoformat(self.started_at)

    @property
    def end(self) -> datetime:
        """The time at which the work ended. Raises OverflowError."""
        return self.start + timedelta(seconds=self.elapsed_s)


class RunFields(_Fields, kw_only=True):
    """The report object of a run. Unknown fields are ignored."""

    files: InputCounts
    records: RecordCounts
    rates: RunRates = msgspec.field(default_factory=RunRates)
    retries: _Count = 0
    peak_memory_bytes: _Count
    slowest_files: list[SlowFileFields] = []
    failures: list[FailureFields]
    failures_omitted: _Count
    failure_kinds: dict[_Word, _Count] | None = None  # None in reports of earlier versions
    exit_code: _Count
    sources: list[SourceFields] | UnsetType = UNSET
    sink: SinkFields | UnsetType | None = UNSET
    dask: DaskFields | UnsetType = UNSET
    target_discarded: str | UnsetType | None = UNSET
    notes: list[str] | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    dry_run: bool | UnsetType = UNSET
    batches: _Count | UnsetType = UNSET
    profile: Any = UNSET  # of `asyncbatch profile`
    groups: Any = UNSET  # the result of --by and --agg, if it has no other target

    @property
    def target_lost(self) -> bool:
        """Whether the run lost its target: it failed, but not because all files did."""
        return self.status == "failed" and not 0 < self.files.total == self.files.failed


class EventCounts(Struct, kw_only=True):
    """The counts of events, in all runs of a stream."""

    read: _Count
    in_windows: _Count
    late: _Count
    rejected: _Count
    dropped: _Count
    late_in_part: _Count


class WindowCounts(Struct, kw_only=True):
    """The counts of windows, one for each key."""

    over: _Count
    refused: _Count


class RunCounts(Struct, kw_only=True):
    """The counts of this run of a stream, without those of earlier ones."""

    events: _Count
    bytes: _Count


class StreamRates(Struct, kw_only=True):
    """The average rates of a stream, in this run."""

    events_per_s: _Rate = 0.0
    bytes_per_s: _Rate = 0.0


class StreamFields(_Fields, kw_only=True):
    """The report object of a stream. Unknown fields are ignored."""

    events: EventCounts
    left: _Count = 0
    losses: _Count
    windows: WindowCounts
    rates: StreamRates
    retries: _Count = 0
    peak_memory_bytes: _Count
    failures: list[FailureFields]
    failures_omitted: _Count
    failure_kinds: dict[_Word, _Count] = {}
    exit_code: _Count
    notes: list[str] | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    this_run: RunCounts | UnsetType = UNSET  # unset in reports of earlier versions

    @property
    def counts(self) -> RunCounts:
        """The counts of this run."""
        if self.this_run is not UNSET:
            return self.this_run
        return RunCounts(
            events=self.events.read, bytes=round(self.rates.bytes_per_s * self.elapsed_s)
        )


AnyFields: TypeAlias = RunFields | StreamFields


def _known_state(state: str) -> SourceState:
    """Return `state`, or "interrupted" for an unknown state of a later version."""
    return state if state in get_args(SourceState) else "interrupted"  # type: ignore[return-value]  # mypy does not narrow by `in`


def sum_counts(files: InputCounts, records: RecordCounts, retries: int) -> Tally:
    """Return the counts as a tally."""
    return Tally(
        files.succeeded,
        files.partial,
        files.failed,
        files.skipped,
        files.bytes,
        records.read,
        records.dropped,
        records.rejected,
        records.written,
        retries,
        records.deleted or 0,
    )
