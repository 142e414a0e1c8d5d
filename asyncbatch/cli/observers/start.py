"""The observers of a run: they learn when it begins and how it ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.cli.observers.base import RunObserver
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.core.paths import is_object_url, redact_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.core.report import Report
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.config.job import Job
    from asyncbatch.config.options.control import MonitorFlags
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.state.history import FailedFile, PastRun

_MAX_NAMED_INPUTS = 3  # in the name of a job
_MAX_ERROR_CHARACTERS = 500


class RunIdentity(NamedTuple):
    """The identity of a run: runs with the same `key` are runs of the same job.

    `target` contains no secrets. `options` are the settings that distinguish jobs, besides inputs
    and target. `title` is the name that the user has given to the job.
    """

    command: str
    inputs: Sequence[str]
    target: str | None = None
    options: Mapping[str, object] = {}
    title: str | None = None

    @property
    def key(self) -> str:
        """The identity as a short hash. Passwords, which may change, do not count."""
        from asyncbatch.state.lock import job_key

        options = {name: value for name, value in self.options.items() if value}
        inputs = [one if one == STDIN else _redacted(one) for one in self.inputs]
        return job_key(inputs, self.target, {"command": self.command, **options})

    @property
    def name(self) -> str:
        """The identity as a short text: the title, the inputs and the target."""
        named = ", ".join(map(_redacted, self.inputs[:_MAX_NAMED_INPUTS]))
        more = len(self.inputs) - _MAX_NAMED_INPUTS
        named += f" and {more:,} more" if more > 0 else ""
        named = named if self.title is None else f"{self.title} ({named})"
        return display_path(named if self.target is None else f"{named} → {self.target}")


def target_name(job: Job) -> str | None:
    """Return the name of a job's target, with its table, without secrets."""
    target = job.target
    if target is None or not target.table:
        return None if target is None else target.name
    return f"{target.name} ({target.table})"


def _redacted(address: str) -> str:
    return redact_url(address) if is_object_url(address) else address


class HistoryRecorder(RunObserver):
    """Adds the run to the history when it ends. A failure to do so is a note on stderr.

    A run that is killed leaves no line.
    """

    def __init__(self, identity: RunIdentity) -> None:
        self._identity = identity

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:
        """Add the run. Another run that is writing is waited for `wait_s` seconds."""
        # Imported late: most runs have no history.
        from asyncbatch.state.history import History, history_path

        try:
            run = _past_run(self._identity, report, exit_code)
            History(history_path()).add(run, _failed_files(report), wait_s=wait_s)
        except UsageError as error:
            to_stderr(f"Note: this run is not in the history: {error}")


def _past_run(identity: RunIdentity, report: AnyReport, exit_code: int) -> PastRun:
    from asyncbatch.state.history import PastRun, started_text

    shared: dict[str, Any] = {
        "started_at": started_text(report.started_at),
        "command": identity.command,
        "job": identity.key,
        "name": identity.name,
        "status": report.status,
        "exit_code": exit_code,
        "error": report.error and display_path(report.error[:_MAX_ERROR_CHARACTERS]),
        "elapsed_s": round(report.elapsed_s, 3),  # as in reports
        "rejected": report.tally.rejected,
        "failures": report.failure_count,
        "run_id": report.run_id,
    }
    if not isinstance(report, Report):
        return PastRun(**shared, records=report.read, written=report.tally.windows)
    tally = report.tally
    return PastRun(
        **shared,
        files=tally.files,
        succeeded=tally.succeeded,
        partial=tally.partial,
        failed=tally.failed,
        skipped=tally.skipped,
        records=tally.read,
        written=tally.written,
    )


def _failed_files(report: AnyReport) -> list[FailedFile]:
    """Return the failed files of a run, in input order, as far as the report has them.

    Messages are left out: they may quote the data, and reports are the place for that.
    """
    from asyncbatch.state.history import FailedFile

    counts: Counter[tuple[str, str]] = Counter()
    for group in report.first_groups:
        counts[group.first.file, group.first.kind] += group.count
    if not isinstance(report, Report):
        for loss in report.tally.losses:
            counts[loss.file, loss.kind] += 1
    return [FailedFile(display_path(file), kind, count) for (file, kind), count in counts.items()]


def make_observers(
    flags: MonitorFlags,
    budget: FailureBudget | None,
    identity: RunIdentity,
    *,
    has_ledger: bool,
) -> list[RunObserver]:
    """Return the observers of a run that its options ask for; the quickest ones first.

    A run with a ledger is repeated, so by default it has a history.
    """
    observers: list[RunObserver] = []
    if has_ledger if flags.history is None else flags.history:
        observers.append(HistoryRecorder(identity))
    if flags.ping is not None:
        from asyncbatch.cli.observers.ping import Ping

        observers.append(Ping(flags.ping, budget))
    return observers
