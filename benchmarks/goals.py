"""The performance goals of asyncbatch."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """A bound: `Goal(">=", 2.5, "x")`."""

    relation: Literal["<=", ">="]
    bound: float
    unit: str

    def verdict(self, value: float) -> str:
        """Return "ok" or "MISSED" for the measured value, before it is rounded."""
        met = value <= self.bound if self.relation == "<=" else value >= self.bound
        return "ok" if met else "MISSED"

    def cells(self, value: float) -> tuple[str, str]:
        """Return the last two cells of a table row: the goal and the verdict."""
        return str(self), self.verdict(value)

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:,g}{self.unit}"
