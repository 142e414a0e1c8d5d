"""JSON reports: rendering, reading and merging."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct

from asyncbatch.core.records import Failure, Violation
from asyncbatch.core.report import (
    MAX_LISTED_FAILURES,
    MAX_SLOWEST_FILES,
    SCHEMA_VERSION,
    Report,
    RunStatus,
    SinkReport,
    SlowFile,
    SourceReport,
    SourceState,
    Traffic,
    merge_sinks,
    merge_sources,
)
from asyncbatch.core.tally import Tally
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.batches import BatchPart


def optional_sections(report: Report) -> dict[str, Any]:
    """Return the sections `sources`, `sink` and `dask`, if the report has them."""
    found: dict[str, Any] = {}
    if report.sources:
        found["sources"] = [source_object(source) for source in report.sources]
    if (sink := report.sink) is not None:
        found["sink"] = {
            "to": sink.to,
            "table": sink.table,
            "mode": sink.mode,
            "key": list(sink.key),
            "written": report.tally.written,
            "rejected": sink.rejected,
        }
    if (cluster := report.crew) is not None:
        found["dask"] = {
            "workers": cluster.workers,
            "threads": cluster.threads,
            "workers_left": cluster.workers_left,
            "tasks": cluster.tasks,
            "tasks_s": round(cluster.busy_s, 3),
        }
    return found


def source_object(source: SourceReport) -> dict[str, Any]:
    """Return the report object of one source."""
    tally, traffic = source.tally, source.traffic
    return {
        "name": source.name,
        "type": source.type,
        "state": source.state,
        "inputs": input_counts(tally),
        "records": record_counts(tally),
        **({"pages": traffic.pages, "requests": traffic.requests} if traffic else {}),
        "retries": tally.retries,
    }


def input_counts(tally: Tally) -> dict[str, int]:
    """Return the counts of files, or of other inputs."""
    return {
        "total": tally.files,
        "succeeded": tally.succeeded,
        "partial": tally.partial,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "bytes": tally.bytes,
    }


def record_counts(tally: Tally) -> dict[str, int]:
    """Return the counts of records."""
    return {
        "read": tally.read,
        "passed": tally.passed,
        "dropped": tally.dropped,
        "rejected": tally.rejected,
        "written": tally.written,
    }


encode = msgspec.json.encode
_encode_lines = msgspec.json.Encoder().encode_lines


def report_object(report: Report, command: str, exit_code: int) -> dict[str, Any]:
    """Return the object that `--output json` prints and `--report` writes."""
    tally, elapsed = report.tally, report.elapsed_s
    listed = report.failures[:MAX_LISTED_FAILURES]

    def rate(count: int) -> float:
        return round(count / elapsed, 1) if elapsed else 0.0

    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "status": report.status,
        "started_at": report.started_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "elapsed_s": round(elapsed, 3),
        "files": input_counts(tally),
        "records": record_counts(tally),
        "rates": {
            "files_per_s": rate(tally.files),
            "records_per_s": rate(tally.read),
            "bytes_per_s": rate(tally.bytes),
        },
        "retries": tally.retries,
        "peak_memory_bytes": report.peak_memory_bytes,
        "slowest_files": [
            {"file": slow.file, "elapsed_ms": round(slow.elapsed_ms, 3)} for slow in report.slowest
        ],
        "failures": listed,
        "failures_omitted": report.failure_count - len(listed),
        "failure_kinds": dict(sorted(report.kinds.items())),
        "exit_code": exit_code,
        **optional_sections(report),
        **({"target_discarded": report.discarded} if report.discarded else {}),
        **({"notes": report.notes} if report.notes else {}),
        **({"error": report.error} if report.error is not None else {}),
    }


class JsonReport:
    """A renderer of the report object."""

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the object."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the report object."""
        yield encode(report_object(report, command, exit_code)) + b"\n"


class JsonLines:
    """A renderer of one line per event, with the report object as the last line."""

    def part(self, found: BatchPart) -> bytes:
        """Return the lines of finished files and rejected records."""
        events = [
            {"event": "failure", **msgspec.to_builtins(outcome)}
            if isinstance(outcome, Failure)
            else outcome
            for outcome in found.outcomes()
        ]
        return _encode_lines(events)

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the line of the summary."""
        summary = {"event": "summary", **report_object(report, command, exit_code)}
        yield encode(summary) + b"\n"


_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_Instant = Annotated[datetime, Meta(tz=True)]


class _FileCounts(Struct):
    total: _Count
    succeeded: _Count
    partial: _Count
    failed: _Count
    skipped: _Count
    bytes: _Count


class _RecordCounts(Struct):
    read: _Count
    dropped: _Count
    rejected: _Count
    written: _Count


# A name of ours, which outputs show as it is. Later versions may have new ones.
_Word = Annotated[str, Meta(pattern=r"\A[a-z][a-z_-]*\Z")]


class _SlowFileFields(Struct):
    file: str
    elapsed_ms: float


class _FailureFields(Struct):
    """A failure whose `kind` is any word: a later version may write new kinds."""

    file: str
    kind: _Word
    message: str
    record: int | None = None
    line: int | None = None
    column: int | None = None
    byte: int | None = None
    pointer: str | msgspec.UnsetType = msgspec.UNSET
    violations: tuple[Violation, ...] | msgspec.UnsetType = msgspec.UNSET
    traceback: str | msgspec.UnsetType = msgspec.UNSET

    def to_failure(self) -> Failure:
        return Failure(**msgspec.structs.asdict(self))


class _SourceFields(Struct):
    """The section of one source."""

    name: str
    type: _Word
    state: str
    inputs: _FileCounts
    records: _RecordCounts
    retries: _Count
    pages: _Count | None = None
    requests: _Count = 0

    def to_report(self) -> SourceReport:
        known = SourceReport(self.name, self.type, _known_state(self.state))
        known.tally = _tally(self.inputs, self.records, self.retries)
        if self.pages is not None:
            known.traffic = Traffic(self.pages, self.requests)
        return known


class _SinkFields(Struct):
    """The section of a sink."""

    to: str
    table: str | None
    mode: _Word | None
    key: tuple[str, ...]
    rejected: _Count

    def to_report(self) -> SinkReport:
        return SinkReport(self.to, self.table, self.mode, self.key, self.rejected)


class RunReport(Struct):
    """The report object of one run as read from a file. Unknown fields are ignored."""

    command: _Word
    status: RunStatus
    started_at: _Instant
    elapsed_s: _Seconds
    files: _FileCounts
    records: _RecordCounts
    peak_memory_bytes: _Count
    failures: list[_FailureFields]
    failures_omitted: _Count
    exit_code: _Count
    retries: _Count = 0
    slowest_files: list[_SlowFileFields] = []
    sources: list[_SourceFields] = []
    sink: _SinkFields | None = None
    target_discarded: str | None = None
    dry_run: bool = False
    notes: list[str] = []
    error: str | None = None
    failure_kinds: dict[_Word, _Count] | None = None  # None in reports of earlier versions

    @property
    def target_lost(self) -> bool:
        """Whether the run lost its target: it failed, but not because all files did."""
        return self.status == "failed" and not 0 < self.files.total == self.files.failed

    @property
    def ended_at(self) -> datetime:
        """The time at which the run ended."""
        return self.started_at + timedelta(seconds=self.elapsed_s)


class _ReportHeader(Struct):
    schema_version: Any = None


def read_report(data: bytes) -> RunReport:
    """Decode the report object in `data`. Raises UsageError with the reason."""
    try:
        version = msgspec.json.decode(data, type=_ReportHeader).schema_version
        if version is None:
            raise UsageError("is not a report: it has no schema_version")
        if version != SCHEMA_VERSION:
            raise UsageError(f"has schema_version {version!r}; this program reads {SCHEMA_VERSION}")
        report = msgspec.json.decode(data, type=RunReport)
        report.ended_at  # noqa: B018 - raises OverflowError for a year beyond 9999
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        hint = "(write one with --report FILE.json or --output json)"
        raise UsageError(f"is not a report {hint}: {error}") from None
    if report.dry_run:
        raise UsageError("is a plan (--dry-run), not the report of a run")
    return report


def merge(reports: list[RunReport]) -> Report:
    """Return one report of one or more runs.

    Counts are added. The time runs from the earliest start to the latest end, so that rates count
    all machines together. The peak memory is the highest of any run. Sources with the same name and
    type are merged. The sink is kept if all reports have the same one. The result is interrupted,
    or has lost its target, if any run has. Failures keep the order of the reports.
    """
    start = min(report.started_at for report in reports)
    failures = [failure.to_failure() for report in reports for failure in report.failures]
    merged = Report(
        started_at=start,
        elapsed_s=(max(report.ended_at for report in reports) - start).total_seconds(),
        peak_memory_bytes=max(report.peak_memory_bytes for report in reports),
        interrupted=any(report.status == "interrupted" for report in reports),
        target_lost=any(report.target_lost for report in reports),
        error="; ".join(filter(None, (report.error for report in reports))) or None,
        discarded="; ".join(filter(None, (report.target_discarded for report in reports))) or None,
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        failure_count=len(failures) + sum(report.failures_omitted for report in reports),
    )
    for report in reports:
        merged.tally += _tally(report.files, report.records, report.retries)
    merged.sources = merge_sources(source.to_report() for one in reports for source in one.sources)
    merged.sink = merge_sinks([one.sink.to_report() if one.sink else None for one in reports])
    slow = (SlowFile(one.elapsed_ms, one.file) for each in reports for one in each.slowest_files)
    merged.slowest = heapq.nlargest(MAX_SLOWEST_FILES, slow)
    for number, failure in enumerate(failures):
        merged.list_failure(number, failure)
    for report in reports:
        kinds = report.failure_kinds
        merged.add_kinds(Counter(one.kind for one in report.failures) if kinds is None else kinds)
    return merged


def _known_state(state: str) -> SourceState:
    """Return `state`, or "interrupted" for an unknown state of a later version."""
    return state if state in get_args(SourceState) else "interrupted"  # type: ignore[return-value]  # mypy does not narrow by `in`


def _tally(files: _FileCounts, records: _RecordCounts, retries: int) -> Tally:
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
    )
