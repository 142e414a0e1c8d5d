"""How many failures a run may have and still count as good."""

from __future__ import annotations

from msgspec import Struct

PERCENT_FROM = 100
"""A percentage is not judged before so much was seen: one bad file of two is no trend."""


class FailureBudget(Struct, frozen=True):
    """At most `limit` failures, or, with `percent`, at most `limit` in a hundred seen."""

    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureBudget:
        """Return the budget that `N` or `P%` stands for. Raises ValueError with what to write."""
        percent = text.endswith("%")
        advice = f"{text!r} is neither a number of failures (5) nor a percentage (2.5%)"
        try:
            limit = float(text[:-1]) if percent else int(text)
        except ValueError:
            raise ValueError(advice) from None
        if not 0 <= limit <= (100 if percent else float("inf")):
            raise ValueError(advice)
        return cls(limit, percent)

    def is_spent(self, failures: int, seen: int, *, final: bool = False) -> bool:
        """Whether `failures` of what was `seen` (files and records) are more than allowed."""
        if not self.percent:
            return failures > self.limit
        return (final or seen >= PERCENT_FROM) and failures * 100 > self.limit * seen

    def __str__(self) -> str:
        return f"{self.limit:g}{'%' if self.percent else ''}"
