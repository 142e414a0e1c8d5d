"""The sections of a report that tell its sources and its sink apart, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncbatch.report import Report
    from asyncbatch.sections import SourceReport
    from asyncbatch.tally import Tally


def sections(report: Report) -> dict[str, Any]:
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
    if (crew := report.crew) is not None:
        found["dask"] = {
            "workers": crew.workers,
            "threads": crew.threads,
            "workers_left": crew.left,
            "tasks": crew.tasks,
            "tasks_s": round(crew.busy_s, 3),
        }
    return found


def source_object(source: SourceReport) -> dict[str, Any]:
    """Return what one source came to."""
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
    """Return what became of files, or of other inputs."""
    return {
        "total": tally.files,
        "succeeded": tally.succeeded,
        "partial": tally.partial,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "bytes": tally.bytes,
    }


def record_counts(tally: Tally) -> dict[str, int]:
    """Return what became of records."""
    return {
        "read": tally.read,
        "passed": tally.passed,
        "dropped": tally.dropped,
        "rejected": tally.rejected,
        "written": tally.written,
    }
