"""The log of a command for machines: lines of text or JSON, in a file or on stderr."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Any, Self

import msgspec
from typer.exceptions import TyperException

from asyncbatch._version import __version__
from asyncbatch.cli import exit_codes
from asyncbatch.cli.display.progress_lines import PlainProgress, stream_line
from asyncbatch.cli.display.text import SummaryOptions, headline, status_line
from asyncbatch.cli.observers.base import RunObserver
from asyncbatch.cli.options.usage import usage_message
from asyncbatch.cli.terminal import write_stderr
from asyncbatch.core.log import LOGGER, log_event
from asyncbatch.core.paths import is_store_url
from asyncbatch.core.records import Failure, display_path
from asyncbatch.core.report import Report, process_run_id
from asyncbatch.core.units import format_count, format_location, format_seconds, printable
from asyncbatch.errors import UsageError
from asyncbatch.pipeline.output_guard import is_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import AnyReport

_INFO, _WARNING, _ERROR = logging.INFO, logging.WARNING, logging.ERROR
# The beginnings of lines for people, and the levels that the log gives in their place.
_LEVELS = {"Error: ": _ERROR, "Not run: ": _ERROR, "Warning: ": _WARNING, "Note: ": _WARNING}
# Events that are warnings, whatever their lines begin with.
_SERIOUS = frozenset({"signal", "lost"})
_START_BYTES = 64  # of a file, which tell whether it is a log
# Lists of a report that may be long, and its failures, which have lines of their own.
_LISTS = frozenset({"failures", "failures_omitted", "slowest_files", "notes"})


class _JsonLine(logging.Formatter):
    """Formats a record as one JSON object: the fixed fields first, then those of its event."""

    def format(self, record: logging.LogRecord) -> str:
        line = json.dumps(
            {
                "time": _time(record),
                "level": record.levelname.lower(),
                "run_id": process_run_id(),
                "event": getattr(record, "event", "note"),
                "message": record.getMessage(),
                **getattr(record, "fields", {}),
            },
            default=str,
        )
        for command in ("##[", "##vso["):  # a runner of CI would take the rest for a command
            line = line.replace(command, rf"\u0023{command[1:]}")
        return line


class _TextLine(logging.Formatter):
    """Formats a record as one line: time, level, run, event, message."""

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", "note")
        head = f"{_time(record)} {record.levelname} {process_run_id()} {event}"
        return f"{head}: {printable(record.getMessage())}"


_FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {"json": _JsonLine, "text": _TextLine}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def observe_run(report: AnyReport, command: str) -> list[RunObserver]:
    """Return the observer that logs a run, if this process has a log."""
    log = open_log()
    return [] if log is None else [RunLog(log, report, command)]


def open_log() -> MachineLog | None:
    """Return the log of this process, or None if it has none."""
    handlers = (one for one in LOGGER.handlers if isinstance(one, _FileHandler | _StderrHandler))
    return next((one.log for one in handlers), None)


class _FileHandler(WatchedFileHandler):
    """Appends to a file, and begins it anew if it was renamed or removed.

    A line that cannot be written is lost, with one note on stderr: the run goes on.
    """

    log: MachineLog
    has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # of the look whether it is still the same file
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - of `logging`
        if not self.has_failed:
            self.has_failed = True
            error = sys.exc_info()[1]
            reason = getattr(error, "strerror", None) or error
            name = printable(display_path(self.baseFilename))
            write_stderr(f"Note: the log {name} cannot be written: {reason}")


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to stderr. A closed stderr does not end the run."""

    log: MachineLog

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of `logging`
        """Do nothing: there is no other place to tell it."""


class MachineLog:
    """The log of this process from `open` on, in a file or else on stderr.

    As a context it logs the end of a command, if no run did so.
    """

    def __init__(self, path: str | None, form: str) -> None:
        self._path, self._form = path, form
        self.has_ended: bool = False

    @property
    def is_on_stderr(self) -> bool:
        """Whether all lines on stderr are lines of the log."""
        return self._path is None

    def open(self, command: str) -> None:
        """Begin to log. Raises UsageError if the file cannot be written."""
        self._handler = self._make_handler()
        self._handler.log = self
        self._handler.setFormatter(_FORMATTERS.get(self._form, _TextLine)())
        LOGGER.addHandler(self._handler)
        LOGGER.setLevel(_INFO)
        LOGGER.propagate = False  # a user's module may print all logs on stderr
        log_event(
            _INFO,
            "start",
            f"asyncbatch {__version__}: {command}, process {os.getpid()}",
            version=__version__,
            command=command,
            pid=os.getpid(),
            python=platform.python_version(),
        )

    def _make_handler(self) -> _FileHandler | _StderrHandler:
        path = self._path
        if path is None:
            return _StderrHandler(sys.stderr)
        if path == "-":
            raise UsageError("--log-file - names no file: --log-format alone writes to stderr")
        if is_store_url(path):
            raise UsageError("--log-file names a file of this machine: an object cannot grow")
        _check_file(path)
        try:
            return _FileHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(
                f"--log-file: cannot write {display_path(path)}: {error.strerror}"
            ) from None

    def end(self, message: str, exit_code: int, **fields: Any) -> None:
        """Log the end of the command."""
        self.has_ended = True
        log_event(_ERROR if exit_code else _INFO, "end", message, exit_code=exit_code, **fields)

    def note(self, line: str, event: str = "note") -> None:
        """Log a line for people. Its level is that of its first word."""
        level = _WARNING if event in _SERIOUS else _INFO
        for prefix, meant in _LEVELS.items():
            if line.startswith(prefix):
                line, level = line.removeprefix(prefix), meant
        log_event(level, event, line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.has_ended:
            return
        code = getattr(error, "exit_code", 0 if error is None else exit_codes.FAILURES)
        reason = getattr(error, "reason", None)
        if isinstance(error, TyperException):
            reason = usage_message(error)
        self.end(reason or f"exit status {code}", int(code))


def _check_file(path: str) -> None:
    """Raise UsageError for a file with other content: it may be an input, or anything else."""
    try:
        if not os.path.isfile(path):  # a new file, or a device
            return
        with open(path, "rb") as file:
            start = file.read(_START_BYTES)
    except OSError:  # it can be written, perhaps
        return
    if start and not is_log(start):
        raise UsageError(
            f"--log-file: {display_path(path)} is no log of asyncbatch: name another file"
        )


class RunLog(RunObserver):
    """Logs one run or stream: settings, failures, progress, the figures of the end."""

    def __init__(self, log: MachineLog, report: AnyReport, command: str) -> None:
        self._log, self._report, self._command = log, report, command
        line = None if isinstance(report, Report) else stream_line
        self._progress = PlainProgress(self._log_progress, line)
        self._snapshot: Any = None

    def begin(self, report: AnyReport) -> None:
        settings = report.settings
        text = "; ".join(f"{name}: {value}" for name, value in settings.items())
        log_event(_INFO, "settings", text, settings=settings)

    def part(self, found: Any) -> None:
        """Log failures: each file that failed, and for rejected records one line a file."""
        if isinstance(self._report, Report):
            for failure, count in _batch_failures(found):
                self._log_failure(failure, count)
            if retries := found.part.retries:
                log_event(_INFO, "retry", f"{format_count(retries, 'retry')} in a worker",
                          count=retries)  # fmt: skip
        else:
            for failure in found.failures:
                self._log_failure(failure, 1)

    def _log_failure(self, failure: Failure, count: int) -> None:
        is_record = failure.record is not None
        more = f" (and {count - 1:,} more records of this file)" if count > 1 else ""
        place = f"{failure.kind}: {format_location(failure)}"
        fields = msgspec.to_builtins(failure)
        message = fields.pop("message")
        log_event(
            _WARNING if is_record else _ERROR,
            "rejected" if is_record else "failed",
            f"{place}: {message}{more}",
            count=count,
            reason=message,
            **{
                name: value
                for name, value in fields.items()
                if value is not None and name not in ("violations", "traceback")
            },
        )

    def snapshot(self, snapshot: Any, report: AnyReport) -> None:  # noqa: ARG002 - see the base class
        self._snapshot = snapshot
        self._progress.show(snapshot)

    def _log_progress(self, line: str) -> None:
        tally = self._snapshot.tally
        names = ("files", "failures", "read", "written", "events", "windows", "rejected", "bytes")
        figures = {name: getattr(tally, name) for name in names if hasattr(tally, name)}
        elapsed = round(self._snapshot.elapsed_s, 3)
        log_event(_INFO, "progress", line, elapsed_s=elapsed, **figures)

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:  # noqa: ARG002 - see above
        from asyncbatch.cli.render.json import report_object

        if isinstance(report, Report):
            for failure in report.losses:  # they are in no part
                self._log_failure(failure, 1)
        for note in report.notes:
            log_event(_WARNING, "note", note)
        options = SummaryOptions(exit_code)
        fields = msgspec.to_builtins(report_object(report, self._command, exit_code))
        kept = {name: value for name, value in fields.items() if name not in _LISTS}
        for name in ("run_id", "exit_code"):
            kept.pop(name, None)
        self._log.end(f"{status_line(report, options)}; {_headline(report)}", exit_code, **kept)


def _headline(report: AnyReport) -> str:
    if isinstance(report, Report):
        return headline(report)
    events, windows = report.read, report.tally.windows
    took = format_seconds(report.elapsed_s)
    return f"{format_count(events, 'event')} in {took}: {format_count(windows, 'window')}"


def _batch_failures(found: BatchPart) -> Iterator[tuple[Failure, int]]:
    """Yield the error of each failed file, and the first rejection of each other file."""
    part = found.part
    first: dict[int, Failure] = {}
    counts = Counter(index for index, _ in part.rejections)
    for index, failure in part.rejections:
        first.setdefault(index, failure)
    for index in sorted({*first, *part.errors}):
        if index in first:
            yield first[index], counts[index]
        if index in part.errors and part.errors[index].record is None:
            yield part.errors[index], 1
