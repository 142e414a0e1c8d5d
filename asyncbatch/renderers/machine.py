"""The machine-readable contract: one object for a run, one line for each event.

Fields are added, never renamed; `schema_version` counts what could not be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.records import Failure
from asyncbatch.renderers.sections import input_counts, record_counts, sections
from asyncbatch.report import LISTED_FAILURES, SCHEMA_VERSION, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.records import BatchPart

encode = msgspec.json.encode
_encode_lines = msgspec.json.Encoder().encode_lines


def report_object(report: Report, command: str, exit_code: int) -> dict[str, Any]:
    """Return the object that `--output json` prints and `--report` writes."""
    tally, elapsed = report.tally, report.elapsed_s
    listed = report.failures[:LISTED_FAILURES]

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
        "exit_code": exit_code,
        **sections(report),
        **({"target_discarded": report.discarded} if report.discarded else {}),
    }


class Json:
    """The report object, at the end."""

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - the report has counted it
        """Return nothing: the object comes when all is done."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the object."""
        yield encode(report_object(report, command, exit_code)) + b"\n"


class JsonLines:
    """A line for each event as it happens, and the report object as the last."""

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
        """Yield the summary's line."""
        summary = {"event": "summary", **report_object(report, command, exit_code)}
        yield encode(summary) + b"\n"
