"""Plain text tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.goals import Goal


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns with a fitting width, the first left-aligned, the others right-aligned.

    A row that is shorter than the header has a text in place of its numbers.
    """
    whole = [header, *(row for row in rows if len(row) == len(header))]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(widths[0], *(len(row[0]) for row in rows))
    for row in (header, ["-" * width for width in widths], *rows):
        first, *others = row
        cells = [first.ljust(widths[0])]
        if len(row) == len(header):
            cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        else:
            cells += others
        print("  ".join(cells).rstrip())
    print(flush=True)


def print_memory(peak_bytes: int, goal: Goal) -> None:
    """Print the peak memory of asyncbatch, below a table."""
    memory = peak_bytes / 1e6
    goal_text, verdict = goal.cells(memory)
    print(f"asyncbatch's peak memory, all processes: {memory:,.0f} MB  {goal_text}  {verdict}\n")
