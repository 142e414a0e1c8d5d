"""The base of the observers of a run: history, pings, log, live page, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from asyncbatch.core.report import AnyReport


class RunObserver:
    """An observer of one run. It never changes the exit code, and its methods must not block."""

    shows_details: ClassVar[bool] = False  # whether it shows failures and settings meanwhile

    def begin(self, report: AnyReport) -> None:
        """Learn that the run begins. Its report goes on to count."""

    def part(self, found: Any) -> None:
        """Learn of the outcome of some inputs, or of some windows."""

    def snapshot(self, snapshot: Any, report: AnyReport) -> None:
        """Learn of the progress, several times a second."""

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:
        """Learn how the run ended, within `wait_s` seconds: then the process ends."""

    def linger(self, exit_code: int) -> None:
        """Keep the process, if the user asked for that. Called last, except after a signal."""
