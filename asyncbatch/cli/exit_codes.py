"""What the exit status of a command means; the only place that decides it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.report import Report
    from asyncbatch.core.tally import FailureBudget

SUCCESS = 0
FAILURES = 1
"""It ran, and some input failed; or the results could not be delivered."""
USAGE = 2
"""It did not run: wrong options, nothing matched, a target that cannot be used."""
LOCKED = 75
"""It did not run: another run has the lock. To be tried again later: sysexits' EX_TEMPFAIL."""
CLOSED_OUTPUT = 141
"""Whoever read our output has gone: what a shell reports for SIGPIPE."""


def of_report(report: Report, budget: FailureBudget | None) -> int:
    """Return the status of a run that came to its end."""
    if report.over_budget or report.target_lost:
        return FAILURES
    return SUCCESS if budget or not report.tally.failures else FAILURES


def of_merged(codes: Iterable[int]) -> int:
    """Return the status of several runs together: the highest, which is the most severe."""
    return max(codes)


def of_signal(number: int) -> int:
    """Return the status of a run that a signal ended: 130 for Ctrl-C, else SIGTERM's 143."""
    return 128 + (number if number == signal.SIGINT else signal.SIGTERM)
