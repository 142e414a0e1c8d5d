"""The exit codes of all commands. No other module decides them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.report import Report
    from asyncbatch.core.tally import FailureBudget

SUCCESS = 0
FAILURES = 1  # It ran, and some input failed; or the results could not be delivered.
USAGE = 2  # It did not run: wrong options, nothing matched, a target that cannot be used.
LOCKED = 75  # The lock is held by another run. Try again later: EX_TEMPFAIL of sysexits.h.
CLOSED_OUTPUT = 141  # The reader of our output has gone. A shell reports this status for SIGPIPE.


def of_report(report: Report, budget: FailureBudget | None) -> int:
    """Return the status of a run that came to its end."""
    if report.over_budget or report.target_lost:
        return FAILURES
    return SUCCESS if budget or not report.tally.failures else FAILURES


def of_merged(codes: Iterable[int]) -> int:
    """Return the exit code of several runs together: the highest is the most severe."""
    return max(codes)


def of_signal(number: int) -> int:
    """Return the exit code after a signal: 130 for Ctrl-C, else 143, SIGTERM's."""
    return 128 + (number if number == signal.SIGINT else signal.SIGTERM)
