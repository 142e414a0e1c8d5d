"""The observers of a run: they learn when it begins and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncbatch.config.options.control import MonitorFlags
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureBudget


class RunObserver(Protocol):
    """Somebody besides the user who learns of a run. It never changes the exit code."""

    def begin(self) -> None:
        """Learn that the run begins. Must not block."""
        ...

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:
        """Learn how the run ended, within `wait_s` seconds: then the process ends."""
        ...


def make_observers(flags: MonitorFlags, budget: FailureBudget | None) -> list[RunObserver]:
    """Return the observers that the options of a run name."""
    observers: list[RunObserver] = []
    if flags.ping is not None:
        from asyncbatch.cli.ping import Ping

        observers.append(Ping(flags.ping, budget))
    return observers
