"""What a stream has come to, in files for other programs: an object, or metrics."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.errors import UsageError
from asyncbatch.renderers.gauges import Gauges
from asyncbatch.report import SCHEMA_VERSION
from asyncbatch.sinks.atomic import AtomicFile

if TYPE_CHECKING:
    from asyncbatch.streams.run import StreamSnapshot

_EVERY_SECONDS = 5.0
"""How often metrics are written while the stream goes on."""


class StreamReport:
    """One file, replaced whole: by metrics now and then, by either form at the end."""

    def __init__(self, path: str) -> None:
        """Raise UsageError if `path` cannot be written, or is of no such form."""
        self._name, suffix = os.path.splitext(os.path.basename(path))
        if suffix in (".xml", ".md", ".jsonl"):
            raise UsageError(
                f"--report {path}: a stream has no report of that form: write .json or .prom"
            )
        folder = os.path.dirname(path) or "."
        if "://" in path or os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise UsageError(f"--report: cannot write {path}: no such folder, or not writable")
        self._path, self._are_metrics = path, suffix == ".prom"
        self._started = datetime.now(UTC)
        self._written = 0.0
        if self._are_metrics:
            Gauges("", self._name)  # tells now if a library is missing

    def show(self, snapshot: StreamSnapshot) -> None:
        """Write metrics, if it is time. Raises SinkError, UsageError."""
        if self._are_metrics and time.monotonic() - self._written >= _EVERY_SECONDS:
            self._written = time.monotonic()
            self._write(self._metrics(snapshot, None))

    def finish(self, snapshot: StreamSnapshot, exit_code: int, *, stopped: bool) -> None:
        """Write the whole. Raises SinkError, UsageError."""
        if self._are_metrics:
            self._write(self._metrics(snapshot, exit_code))
        else:
            self._write(encode(self._object(snapshot, exit_code, stopped=stopped)) + b"\n")

    def _write(self, data: bytes) -> None:
        file = AtomicFile(self._path)
        file.open()
        file.write(data)
        file.commit()

    def _metrics(self, snapshot: StreamSnapshot, exit_code: int | None) -> bytes:
        gauges, tally = Gauges("asyncbatch_stream", self._name), snapshot.tally
        tell = gauges.tell
        tell("running", "Whether it goes on.", exit_code is None)
        if exit_code is not None:
            tell("exit_code", "Its exit status.", exit_code)
        tell("started_timestamp_seconds", "When this run of it began.", self._started.timestamp())
        tell("updated_timestamp_seconds", "When this was written.", time.time())
        gauges.tell_each("events", "Events read, by what became of them.", _events(snapshot))
        tell("losses", "How often something of a source could not be read.", tally.lost)
        tell("windows", "Windows that are over, one for each key.", tally.windows)
        tell("windows_refused", "Windows that the target would not have.", tally.refused)
        tell("read_bytes", "What was read.", tally.bytes)
        if snapshot.lag is not None:
            tell(
                "watermark_lag_seconds", "How far the time of events is behind.", snapshot.lag / 1e6
            )
        tell("memory_bytes", "Of all processes.", snapshot.memory.current)
        tell("peak_memory_bytes", "Of all processes.", snapshot.memory.peak)
        return gauges.text()

    def _object(self, snapshot: StreamSnapshot, exit_code: int, *, stopped: bool) -> dict[str, Any]:
        tally, seconds = snapshot.tally, snapshot.elapsed_s
        failures = [*tally.rejections, *tally.losses]
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "stream",
            "status": "stopped" if stopped else "ended",
            "started_at": self._started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "elapsed_s": round(seconds, 3),
            "events": {
                "read": tally.read, **_events(snapshot), "late_in_part": tally.late_in_part,
            },
            "left": snapshot.left,
            "losses": tally.lost,
            "windows": {"over": tally.windows, "refused": tally.refused},
            "rates": {
                "events_per_s": round(snapshot.read / seconds, 1) if seconds else 0.0,
                "bytes_per_s": round(snapshot.bytes / seconds, 1) if seconds else 0.0,
            },
            "peak_memory_bytes": snapshot.memory.peak,
            "failures": failures,
            "failures_omitted": tally.rejected + tally.lost - len(failures),
            "exit_code": exit_code,
        }  # fmt: skip


def _events(snapshot: StreamSnapshot) -> dict[str, int]:
    tally = snapshot.tally
    return {
        "in_windows": tally.events, "late": tally.late, "rejected": tally.rejected,
        "dropped": tally.dropped,
    }  # fmt: skip
