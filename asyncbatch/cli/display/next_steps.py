"""The next steps that a summary proposes after a run that was not a success."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncbatch.core.report import Report
from asyncbatch.core.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.config.job import Job
    from asyncbatch.core.report import AnyReport
    from asyncbatch.sinks.target import Target

# How SQLite, DuckDB and PostgreSQL refuse a row whose key is there already, and its columns.
_REPEATED_KEY = re.compile(
    r"UNIQUE constraint failed: (?P<sqlite>(?!index ).+)?"
    r"|a row with the same (?P<duckdb>.+) exists already"
    r"|duplicate key value violates unique constraint(?:.*Key \((?P<postgres>[^)]+)\)=)?",
    re.DOTALL,
)

_LOADED = "rows are in the table already"  # as the ledger refuses inputs
_WITH_DEAD_LETTERS = frozenset({"run", "etl"})


def next_steps(job: Job, command: str, report: AnyReport) -> list[str]:
    """Return what the user may do after a run that was not a success."""
    assert isinstance(report, Report)
    steps = []
    work = job.record_work
    if job.target is None and report.tally.passed and work is not None and work.runs_programs:
        # A summary on stdout is part of the output contract, so records are printed only on demand.
        steps.append("the results are discarded: --to - prints them, --to FILE keeps them")
    if report.interrupted and job.watch is not None:
        steps.append("the same command continues: finished files are remembered")
    elif report.interrupted and _is_resumable(job.target) and command == "run":
        steps.append("--resume continues where the run ended")
    if (target := job.target) is not None and target.is_database:
        steps += _key_steps(target, report, command)
    if report.tally.failures and not report.target_lost:
        if job.dead_letter is None:
            if command not in _WITH_DEAD_LETTERS or not _is_worth_repeating(report):
                return steps
            steps.append("--dead-letter FILE keeps what failed, so that it can be run again")
        elif command == "run":
            steps.append(f"--from-dead-letter {job.dead_letter} runs again what failed")
    return steps


def _is_worth_repeating(report: Report) -> bool:
    """Whether some failure may not come again if its input, and nothing else, is mended."""
    missing = [one for one in report.missing.values() if one.note in report.notes]
    hopeless = report.kinds.get("not_found", 0) + sum(sum(one.counts.values()) for one in missing)
    reasons = [one.first.message for one in report.first_groups if one.first.kind == "sink"]
    if all(_LOADED in one or _REPEATED_KEY.search(one) for one in reasons):
        hopeless += report.kinds.get("sink", 0)
    # A file without an accepted record is failed, too: it has no failure of its own.
    return sum(report.kinds.values()) > hopeless


def _is_resumable(target: Target | None) -> bool:
    return target is not None and target.groups is None


def _key_steps(target: Target, report: Report, command: str) -> Iterator[str]:
    """Yield the step after rows whose key the table has already."""
    if target.key and target.mode != "append":
        return
    for group in report.first_groups:
        if group.first.kind != "sink" or not (found := _REPEATED_KEY.search(group.first.message)):
            continue
        columns = next(filter(None, found.groups()), "FIELDS").split(", ")
        names = [printable(name.rpartition(".")[2].strip('"')) for name in columns]
        if target.key:
            option = 'mode = "upsert" in [sink]' if command == "etl" else "--mode upsert"
            yield f"{option} updates the rows that the table has already"
        elif command == "etl":
            key = ", ".join(f'"{name}"' for name in names)
            yield f"key = [{key}] in [sink] updates the rows that the table has already"
        else:
            yield f"--key {','.join(names)} updates the rows that the table has already"
        return
