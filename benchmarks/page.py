"""The command `python -m benchmarks.page FILE...`: results into docs/performance.md.

Each FILE was written by `benchmarks.run --json`, and becomes a column with the name of the file.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.results import Figure, worst_figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = os.path.join(os.path.dirname(__file__), "..", "docs", "performance.md")
BEGIN, END = "<!-- results: written by benchmarks.page -->", "<!-- end of the results -->"


def main(paths: Sequence[str], page: str = PAGE) -> None:
    """Replace the results in the page."""
    runs = {}
    for path in paths:
        with open(path, encoding="utf-8") as stream:
            runs[os.path.splitext(os.path.basename(path))[0]] = json.load(stream)
    with open(page, encoding="utf-8") as stream:
        before, _, rest = stream.read().partition(BEGIN)
    after = rest.partition(END)[2]
    with open(page, "w", encoding="utf-8") as stream:
        stream.write(f"{before}{BEGIN}\n{markdown(runs)}{END}{after}")


def markdown(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the worst shape of each row for all runs, and every shape for the first run."""
    figures = {name: list(map(Figure.of_dict, run["figures"])) for name, run in runs.items()}
    worst = {name: {one.row: one for one in worst_figures(of)} for name, of in figures.items()}
    first = next(iter(runs))
    known = list(dict.fromkeys(row for of in worst.values() for row in of))
    rows = [["work", "compared with", "goal", *runs], ["---"] * (3 + len(runs))]
    rows += [
        [row.work, row.against, str(row.goal), *(_cell(of.get(row)) for of in worst.values())]
        for row in known
    ]
    every = [["work", "compared with", f"each shape ({first})"], ["---"] * 3]
    for row in known:
        shapes = [f"{one.shape} {one.show()}" for one in figures[first] if one.row == row]
        if len(shapes) > 1:
            every.append([row.work, row.against, "; ".join(shapes)])
    trial = ". A trial with small corpora: these are no results."
    about = [
        f"- {name}: {run['machine']}, medians of {run['rounds']} rounds; "
        + ", ".join(run["versions"])
        + (trial if run["quick"] else "")
        + "".join(f"; {peer} left out: {reason}" for peer, reason in run["left_out"].items())
        + "".join(f"; {section} failed" for section in run["failures"])
        for name, run in runs.items()
    ]
    tables = {"Every shape": every}
    for title, (header, *others) in runs[first]["tables"].items():
        tables[f"{title} ({first})"] = [header, ["---"] * len(header), *others]
    lines = [*map(_line, rows), ""]
    for title, table in tables.items():
        lines += [f"{title}:", "", *map(_line, table), ""]
    return "\n".join([*lines, *about, ""])


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    goal = figure.row.goal
    missed = "" if goal.verdict(figure.value) == "ok" else ", **missed**"
    floor = f", floor {goal.show(figure.floor)}" if figure.floor else ""
    return f"{goal.show(figure.value)} ({figure.shape}{floor}){missed}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
