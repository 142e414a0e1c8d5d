"""Which rows are refused: those at fault, and with each the others of its group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.sinks import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def spread(reasons: Mapping[int, str], groups: Sequence[int] | None) -> Mapping[int, str]:
    """Return the reasons against rows, by number, with that of one for all of its group."""
    if groups is None or not reasons:
        return reasons
    first: dict[int, str] = {}
    for row in sorted(reasons):
        first.setdefault(groups[row], reasons[row])
    return {row: first[group] for row, group in enumerate(groups) if group in first}


def edges(count: int, groups: Sequence[int] | None) -> Sequence[int]:
    """Return the row that each group begins with, and `count`."""
    if groups is None:
        return range(count + 1)
    return [row for row in range(count) if not row or groups[row] != groups[row - 1]] + [count]


def salvage(edges: Sequence[int], attempt: Callable[[int, int], str | None]) -> dict[int, str]:
    """Have `attempt` load all rows but those of groups that it cannot; return why not.

    It is given the first row and the one after the last; it loads all of them and returns None,
    or leaves no trace and returns the reason. Few bad groups cost few attempts.
    """
    reasons: dict[int, str] = {}
    to_do = [(0, len(edges) - 1)]
    while to_do:
        first, last = to_do.pop()
        start, stop = edges[first], edges[last]
        if start == stop or (reason := attempt(start, stop)) is None:
            continue
        if last - first == 1:
            reasons.update(dict.fromkeys(range(start, stop), reason))
        else:
            middle = (first + last) // 2
            to_do += [(middle, last), (first, middle)]
    return reasons


def refusals(reasons: Mapping[int, str], rows: Sequence[int] | None = None) -> list[Refusal]:
    """Return a refusal for each reason; `rows` has the numbers of the rows in what was loaded."""
    return [Refusal(row if rows is None else rows[row], reasons[row]) for row in sorted(reasons)]
