"""What asyncbatch sets itself, next to what was measured."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """A bound: `Goal(">=", 2.5, "x")`."""

    relation: Literal["<=", ">="]
    bound: float
    unit: str

    def verdict(self, value: float) -> str:
        """Judge the value as it was measured, not as it is printed."""
        met = value <= self.bound if self.relation == "<=" else value >= self.bound
        return "ok" if met else "MISSED"

    def cells(self, value: float) -> tuple[str, str]:
        """Return a table's last two cells."""
        return str(self), self.verdict(value)

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:,g}{self.unit}"
