"""JSON reports: rendering, reading and merging."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct

from asyncbatch.cli.render.schema import (
    INSTANT_FORMAT,
    AnyFields,
    DaskFields,
    EventCounts,
    InputCounts,
    RecordCounts,
    RunCounts,
    RunFields,
    RunRates,
    SinkFields,
    SlowFileFields,
    SourceFields,
    StreamFields,
    StreamRates,
    WindowCounts,
    sum_counts,
)
from asyncbatch.core.records import Failure
from asyncbatch.core.report import (
    MAX_LISTED_FAILURES,
    MAX_SLOWEST_FILES,
    SCHEMA_VERSION,
    AnyReport,
    Report,
    SlowFile,
    SourceReport,
    StreamReport,
    merge_sinks,
    merge_sources,
)
from asyncbatch.core.system import Memory
from asyncbatch.core.tally import StreamTally, Tally
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.cli.render import Outcomes

encode = msgspec.json.encode
_encode_lines = msgspec.json.Encoder().encode_lines


def report_object(report: AnyReport, command: str, exit_code: int) -> AnyFields:
    """Return the object that `--output json` prints and `--report` writes."""
    if isinstance(report, StreamReport):
        return _stream_object(report, command, exit_code)
    return run_object(report, command, exit_code)


def run_object(report: Report, command: str, exit_code: int) -> RunFields:
    """Return the object of a run."""
    tally, sink, cluster = report.tally, report.sink, report.crew
    return RunFields(
        **_shared(report, command, exit_code),
        files=_input_counts(tally, is_plan=report.is_plan),
        records=_record_counts(tally),
        rates=RunRates(
            files_per_s=_rate(tally.files, report),
            records_per_s=_rate(tally.read, report),
            bytes_per_s=_rate(tally.bytes, report),
        ),
        retries=tally.retries,
        slowest_files=[
            SlowFileFields(slow.file, round(slow.elapsed_ms, 3)) for slow in report.slowest
        ],
        sources=[_source_fields(source) for source in report.sources] or UNSET,
        sink=UNSET
        if sink is None
        else SinkFields(
            to=sink.to, table=sink.table, mode=sink.mode, key=sink.key,
            written=tally.written, rejected=sink.rejected,
        ),
        dask=UNSET
        if cluster is None
        else DaskFields(
            workers=cluster.workers, threads=cluster.threads, workers_left=cluster.workers_left,
            tasks=cluster.tasks, tasks_s=round(cluster.busy_s, 3),
        ),
        target_discarded=report.discarded or UNSET,
        dry_run=True if report.is_plan else UNSET,
        profile=report.profile or UNSET,
    )  # fmt: skip


def _stream_object(report: StreamReport, command: str, exit_code: int) -> StreamFields:
    tally = report.tally
    return StreamFields(
        **_shared(report, command, exit_code),
        events=EventCounts(
            read=tally.read, in_windows=tally.events, late=tally.late, rejected=tally.rejected,
            dropped=tally.dropped, late_in_part=tally.late_in_part,
        ),
        left=report.left,
        losses=tally.lost,
        windows=WindowCounts(over=tally.windows, refused=tally.refused),
        rates=StreamRates(
            events_per_s=_rate(report.read, report), bytes_per_s=_rate(report.bytes, report)
        ),
        retries=tally.retries,
        this_run=RunCounts(events=report.read, bytes=report.bytes),
    )  # fmt: skip


def _shared(report: AnyReport, command: str, exit_code: int) -> dict[str, Any]:
    """Return the fields that all reports have."""
    listed = report.failures[:MAX_LISTED_FAILURES]
    return {
        "command": command,
        "run_id": report.run_id or UNSET,
        "status": report.status,
        "started_at": report.started_at.astimezone(UTC).strftime(INSTANT_FORMAT),
        "elapsed_s": round(report.elapsed_s, 3),
        "peak_memory_bytes": report.peak_memory_bytes,
        "failures": listed,
        "failures_omitted": report.failure_count - len(listed),
        "failure_kinds": dict(sorted(report.kinds.items())),
        "exit_code": exit_code,
        "notes": report.notes or UNSET,
        "error": UNSET if report.error is None else report.error,
    }


def _rate(count: int, report: AnyReport) -> float:
    return round(count / report.elapsed_s, 1) if report.elapsed_s else 0.0


def _source_fields(source: SourceReport) -> SourceFields:
    tally, traffic = source.tally, source.traffic
    return SourceFields(
        name=source.name,
        type=source.type,
        state=source.state,
        inputs=_input_counts(tally),
        records=_record_counts(tally),
        pages=traffic.pages if traffic else UNSET,
        requests=traffic.requests if traffic else UNSET,
        retries=tally.retries,
    )


def _input_counts(tally: Tally, *, is_plan: bool = False) -> InputCounts:
    return InputCounts(
        total=tally.files, succeeded=0 if is_plan else tally.succeeded, partial=tally.partial,
        failed=tally.failed, skipped=tally.skipped, bytes=tally.bytes,
        planned=tally.succeeded if is_plan else UNSET,
    )  # fmt: skip


def _record_counts(tally: Tally) -> RecordCounts:
    return RecordCounts(
        read=tally.read, passed=tally.passed, dropped=tally.dropped, rejected=tally.rejected,
        written=tally.written, deleted=tally.deleted or UNSET,
    )  # fmt: skip


class JsonReport:
    """A renderer of the report object."""

    def part(self, found: Outcomes) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the object."""
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the report object."""
        yield encode(report_object(report, command, exit_code)) + b"\n"


class JsonLines:
    """A renderer of one line per event, with the report object as the last line."""

    def part(self, found: Outcomes) -> bytes:
        """Return the lines of finished files, rejected records and closed windows."""
        events = [
            {"event": "failure", **msgspec.to_builtins(outcome)}
            if isinstance(outcome, Failure)
            else outcome
            for outcome in found.outcomes()
        ]
        return _encode_lines(events)

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the line of the summary."""
        summary = report_object(report, command, exit_code)
        summary.event = "summary"
        yield encode(summary) + b"\n"


class _ReportHeader(Struct):
    schema_version: Any = None
    command: Any = None


def read_report(data: bytes) -> AnyFields:
    """Decode the report object in `data`. Raises UsageError with the reason."""
    try:
        header = msgspec.json.decode(data, type=_ReportHeader)
        if header.schema_version is None:
            raise UsageError("is not a report: it has no schema_version")
        if header.schema_version != SCHEMA_VERSION:
            raise UsageError(
                f"has schema_version {header.schema_version!r}; this program reads {SCHEMA_VERSION}"
            )
        kind: Any = StreamFields if header.command == "stream" else RunFields
        report: AnyFields = msgspec.json.decode(data, type=kind)
        report.end  # noqa: B018 - raises ValueError or OverflowError for a time that there is not
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        hint = "(write one with --report FILE.json or --output json)"
        raise UsageError(f"is not a report {hint}: {error}") from None
    if isinstance(report, RunFields) and report.dry_run is True:
        raise UsageError("is a plan (--dry-run), not the report of a run")
    return report


def merge(reports: Sequence[AnyFields]) -> AnyReport:
    """Return one report of one or more runs, or of one or more streams.

    Counts are added. The time runs from the earliest start to the latest end, so that rates count
    all machines together. The peak memory is the highest of any run. Failures keep the order of the
    reports.
    """
    streams = [report for report in reports if isinstance(report, StreamFields)]
    if streams:
        return _merge_streams(streams)
    return _merge_runs([report for report in reports if isinstance(report, RunFields)])


def _merge_runs(reports: Sequence[RunFields]) -> Report:
    """Return one report of runs.

    Sources with the same name and type are merged. The sink is kept if all reports have the same
    one. The result is interrupted, or has lost its target, if any run has.
    """
    failures = [failure for report in reports for failure in report.failures]
    merged = Report(
        **_merged(reports),
        peak_memory_bytes=max(report.peak_memory_bytes for report in reports),
        interrupted=any(report.status == "interrupted" for report in reports),
        target_lost=any(report.target_lost for report in reports),
        discarded="; ".join(one.target_discarded for one in reports if one.target_discarded)
        or None,
        failure_count=len(failures) + sum(report.failures_omitted for report in reports),
    )
    for report in reports:
        merged.tally += sum_counts(report.files, report.records, report.retries)
    merged.sources = merge_sources(
        source.to_report() for report in reports for source in report.sources or ()
    )
    merged.sink = merge_sinks([one.sink.to_report() if one.sink else None for one in reports])
    slow = (SlowFile(one.elapsed_ms, one.file) for each in reports for one in each.slowest_files)
    merged.slowest = heapq.nlargest(MAX_SLOWEST_FILES, slow)
    for number, failure in enumerate(failures):
        merged.list_failure(number, failure)
    for report in reports:
        kinds = report.failure_kinds
        merged.add_kinds(Counter(one.kind for one in report.failures) if kinds is None else kinds)
    return merged


def _merge_streams(reports: Sequence[StreamFields]) -> StreamReport:
    """Return one report of streams. It is stopped if any stream was."""
    tally = StreamTally(
        read=sum(report.events.read for report in reports),
        events=sum(report.events.in_windows for report in reports),
        dropped=sum(report.events.dropped for report in reports),
        late=sum(report.events.late for report in reports),
        late_in_part=sum(report.events.late_in_part for report in reports),
        windows=sum(report.windows.over for report in reports),
        refused=sum(report.windows.refused for report in reports),
        retries=sum(report.retries for report in reports),
    )
    failures = [failure for report in reports for failure in report.failures]
    for failure in failures:
        tally.reject(failure, MAX_LISTED_FAILURES)
    # The listed ones are only the first, and some of them are losses.
    tally.rejections = [*failures[:MAX_LISTED_FAILURES]]
    tally.rejected = sum(report.events.rejected for report in reports)
    tally.lost = sum(report.losses for report in reports)
    kinds: Counter[str] = Counter()
    for report in reports:
        kinds.update(report.failure_kinds)
    tally.kinds = dict(kinds)
    return StreamReport(
        **_merged(reports),
        tally=tally,
        read=sum(report.counts.events for report in reports),
        bytes=sum(report.counts.bytes for report in reports),
        memory=Memory(0, max(report.peak_memory_bytes for report in reports)),
        left=sum(report.left for report in reports),
        stopped=any(report.status == "stopped" for report in reports),
    )


def _merged(reports: Sequence[AnyFields]) -> dict[str, Any]:
    """Return the fields that all merged reports have."""
    start = min(report.start for report in reports)
    notes = (note for report in reports for note in report.notes or ())
    ids = [report.run_id for report in reports if report.run_id is not UNSET]
    return {
        "run_id": ids[0] if len(reports) == len(ids) == 1 else None,
        "started_at": start,
        "elapsed_s": (max(report.end for report in reports) - start).total_seconds(),
        "error": "; ".join(report.error for report in reports if report.error) or None,
        "notes": list(dict.fromkeys(notes)),
    }
