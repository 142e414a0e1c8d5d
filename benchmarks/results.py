"""The figures of a run of the benchmark, and their summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.goals import Goal, Row
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Figure(NamedTuple):
    """The measured value of a row on one shape of data."""

    row: Row
    shape: str
    value: float
    floor: float | None = None  # the value that the floor has, where it was measured

    def show(self) -> str:
        """Return the value, and that of the floor."""
        show = self.row.goal.show
        return show(self.value) + (f" (floor {show(self.floor)})" if self.floor else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as values of JSON."""
        names = self.row._asdict() | {"goal": self.row.goal._asdict()}
        return {**names, "shape": self.shape, "value": self.value, "floor": self.floor}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Figure:
        """Return the figure that `as_dict` described."""
        row = Row(values["work"], values["against"], Goal(**values["goal"]))
        return cls(row, values["shape"], values["value"], values["floor"])


class Results:
    """The figures and races of a run, in the order in which they were measured."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.failures: dict[str, str] = {}  # of sections
        self.left_out: dict[str, str] = {}  # peers, with the reason at the first shape
        self._races: list[dict[str, Any]] = []
        self._tables: dict[str, Sequence[Sequence[str]]] = {}

    def add(
        self, row: Row, shape: str, value: float, floor: float | None = None
    ) -> tuple[str, str]:
        """Add a figure. Return the cells of its goal and verdict."""
        self.figures.append(Figure(row, shape, value, floor))
        return row.goal.cells(value)

    def leave_out(self, peer: str, shape: str, reason: str) -> None:
        """Note that a peer is missing, failed, or had a wrong result."""
        self.left_out.setdefault(peer, f"{reason[-200:]} ({shape})")

    def add_race(self, shape: str, contenders: Sequence[Mapping[str, Any]]) -> None:
        """Add the times and memory of all contenders of a race."""
        self._races.append({"shape": shape, "contenders": contenders})

    def add_table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, and keep it for the page."""
        print_table(header, rows)
        self._tables[title] = [header, *rows]

    def write(self, path: str, machine: Mapping[str, Any]) -> None:
        """Write all as one JSON object, for `benchmarks.page`."""
        figures = [figure.as_dict() for figure in self.figures]
        content = {
            "figures": figures,
            "tables": self._tables,
            "races": self._races,
            "left_out": self.left_out,
            "failures": self.failures,
        }
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({**machine, **content}, stream, indent=1, ensure_ascii=False)

    def show(self) -> None:
        """Print the worst figure of each row, the peers left out and the sections that failed."""
        rows = [
            [
                worst.row.work,
                worst.row.against,
                worst.shape,
                worst.show(),
                *worst.row.goal.cells(worst.value),
            ]
            for worst in worst_figures(self.figures)
        ]
        if rows:
            print("== Summary: the worst shape of each row ==")
            print_table(("", "compared with", "worst shape", "figure", "goal", ""), rows, texts=3)
        for peer, reason in self.left_out.items():
            print(f"left out: {peer}: {reason}")
        for section, reason in self.failures.items():
            print(f"FAILED: {section}: {reason}")


def worst_figures(figures: Iterable[Figure]) -> list[Figure]:
    """Return the figure of each row whose value is the furthest from the goal.

    Rows without a peer come last.
    """
    rows: dict[Row, list[Figure]] = {}
    for figure in figures:
        rows.setdefault(figure.row, []).append(figure)
    found = []
    for row, of_row in rows.items():
        worst = row.goal.worst([figure.value for figure in of_row])
        found.append(next(figure for figure in of_row if figure.value == worst))
    return sorted(found, key=lambda figure: not figure.row.against)
