"""The exit codes of all commands. No other module decides them."""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # not from `typing`: this module is loaded before signal handlers are set
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget

SUCCESS = 0
FAILURES = 1  # Some input failed, or the results could not be delivered.
USAGE = 2  # Nothing ran: wrong options, no input matched, or the target cannot be used.
LOCKED = 75  # Another run holds the lock; try again later: EX_TEMPFAIL of sysexits.h.
CLOSED_OUTPUT = 141  # The reader closed our output: a shell's status for SIGPIPE, 128 + 13.


def of_report(report: AnyReport, budget: FailureBudget | None) -> int:
    """Return the exit code of a run or stream that was not interrupted."""
    return FAILURES if report.has_failed(budget) else SUCCESS


def of_merged(codes: Iterable[int]) -> int:
    """Return the exit code of merged reports: the highest one of the runs."""
    return max(codes)


def of_signal(number: int) -> int:
    """Return the exit code after a signal: 130 for SIGINT, else 143 as for SIGTERM."""
    return 128 + (number if number == signal.SIGINT else signal.SIGTERM)
