"""Elements of the HTML report: sections, tables, lists, and the rows of failures."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.records import Failure
from asyncbatch.core.units import format_count, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_MAX_VIOLATIONS = 20  # of a failure; the page counts the others
_MAX_MESSAGE_CHARACTERS = 2000


class Cell(NamedTuple):
    """The text of a cell, the value that orders its column, and HTML to follow the text."""

    text: str
    order: float | None = None
    more: str = ""


def shown(text: str) -> str:
    """Return a text of the data as HTML. Control characters become visible escapes."""
    if len(text) > _MAX_MESSAGE_CHARACTERS:
        text = text[:_MAX_MESSAGE_CHARACTERS] + "…"
    return escape(printable(text))


def section(name: str, title: str, content: str) -> str:
    """Return a section with its heading. `content` is HTML."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(title)}</h2>\n{content}</section>\n'
    )


def cards(counts: Iterable[tuple[str, str, str]]) -> str:
    """Return a list of counts, each with a name and a remark."""
    items = (
        f"<div{_card_class(name, value)}><dt>{shown(name)}</dt><dd>{shown(value)}"
        + (f" <small>{shown(remark)}</small>" if remark else "")
        + "</dd></div>\n"
        for name, value, remark in counts
    )
    return f'<dl class="cards">\n{"".join(items)}</dl>\n'


def _card_class(name: str, value: str) -> str:
    """Return the mark of a count of failures."""
    return ' class="bad"' if value != "0" and name in _FAILURE_COUNTS else ""


_FAILURE_COUNTS = ("failed", "rejected", "rejected records", "read errors", "error")


def definitions(facts: Mapping[str, str]) -> str:
    """Return names with their values. Those without a value are left out."""
    items = (
        f"<div><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>\n"
        for name, value in facts.items()
        if value
    )
    return f'<dl class="facts">\n{"".join(items)}</dl>\n'


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    name: str = "",
    key: str = "",
) -> str:
    """Return a table, in a box that scrolls if the screen is narrow.

    The first sign of a head is the kind of its column: `#` numbers, `.` single words, else texts.
    The script finds a table by its `name`, and lets rows be filtered by the column `key`.
    """
    kinds = [_KINDS.get(head[:1], "text") for head in heads]
    labels = [head.lstrip("#.") for head in heads]
    head_cells = "".join(
        f'<th scope="col" class="{kind}">{escape(label.capitalize())}</th>'
        for label, kind in zip(labels, kinds, strict=True)
    )
    key_index = labels.index(key) if key else None
    lines = []
    for row in rows:
        mark = "" if key_index is None else f' data-key="{shown(str(row[key_index]))}"'
        cells = "".join(_cell(value, kind) for value, kind in zip(row, kinds, strict=True))
        lines.append(f"<tr{mark}>{cells}</tr>\n")
    identity = f' id="{name}"' if name else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}, table">\n'
        f"<table{identity}>\n<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head_cells}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table>\n</div>\n"
    )


_KINDS = {"#": "number", ".": "word"}


def _cell(value: Any, kind: str) -> str:
    start = f'<td class="{kind}"'
    match value:
        case None:
            return f"{start}></td>"
        case Cell(text, order, more):
            order_mark = "" if order is None else f' data-order="{order:g}"'
            return f"{start}{order_mark}>{shown(text)}{more}</td>"
        case int():
            return f'{start} data-order="{value}">{value:,}</td>'
        case _:
            return f"{start}>{shown(str(value))}</td>"


def failure_details(failure: Failure) -> Cell:
    """Return the message of a failure, with its violations and its traceback to unfold."""
    more = ""
    if failure.violations and len(failure.violations) > 1:
        items = "".join(
            f"<li>{shown(_violation_place(one.pointer, one.line, one.column))}: "
            f"{shown(one.message)}</li>"
            for one in failure.violations[:_MAX_VIOLATIONS]
        )
        count = format_count(len(failure.violations), "violation")
        more += f"<details><summary>{count}</summary><ul>{items}</ul></details>"
    if isinstance(failure.traceback, str):
        lines = "\n".join(map(shown, failure.traceback[-_MAX_MESSAGE_CHARACTERS:].splitlines()))
        more += f"<details><summary>traceback</summary><pre>{lines}</pre></details>"
    pointer = failure.pointer if isinstance(failure.pointer, str) else ""
    if pointer and not failure.violations:
        more += f" <code>{shown(pointer)}</code>"
    return Cell(failure.message, more=more)


def _violation_place(pointer: str, line: int | None, column: int | None) -> str:
    place = ":".join(str(number) for number in (line, column) if number is not None)
    return f"{pointer or 'the record'}{f' at {place}' if place else ''}"


def failures_note(count: int, listed: int, grouped: int) -> str:
    """Return how many failures there are, and how many of them the tables leave out."""
    text = f"{format_count(count, 'failure')} in all."
    if listed < count:
        text += f" The last table lists the first {listed:,}."
    if grouped < count:
        text += f" The table of messages counts {grouped:,} of them."
    return f"<p>{text}</p>\n"
