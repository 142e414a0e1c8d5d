"""A summary in Markdown, for a pull request or the page of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncbatch.core.units import (
    format_count,
    format_location,
    format_seconds,
    format_size,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report

MAX_FAILURES = 50

_BACKTICKS = re.compile("`+")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_MARKUP = re.compile(r"[|`\[*~]")
_ESCAPES = re.compile(rf"\\(?={_PUNCTUATION.pattern})")  # a backslash that escapes the next sign


class Markdown:
    """A renderer of two tables: the counts, and the first failures."""

    def part(self, found: BatchPart) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the summary."""
        return b""

    def finish(self, report: Report, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        tally, seconds = report.tally, report.elapsed_s
        rows = {
            "succeeded": f"{tally.succeeded:,}",
            "partial": f"{tally.partial:,}",
            "failed": f"{tally.failed:,}",
            "records": f"{tally.read:,} read, {tally.rejected:,} rejected",
            **({"written": _written(report)} if report.target or tally.written else {}),
            "size": format_size(tally.bytes),
            "time": format_seconds(seconds),
            "peak memory": format_size(report.peak_memory_bytes),
        }
        files = format_count(tally.files, report.input_noun)
        yield f"### asyncbatch {command}: {report.status}, {files}\n\n".encode()
        yield b"| | |\n| --- | --- |\n"
        yield "".join(f"| {label} | {value} |\n" for label, value in rows.items()).encode()
        yield f"\nExit status {exit_code}.\n".encode()
        if report.error is not None:
            yield f"\nError: {_cell(printable(report.error))}\n".encode()
        yield from _sources(report)
        for note in report.notes:
            yield f"\n{_cell(printable(note))}\n".encode()
        shown = report.failures[:MAX_FAILURES]
        if not shown:
            return
        yield b"\n| where | kind | why |\n| --- | --- | --- |\n"
        for one in shown:
            where, why = _code(format_location(one)), _cell(printable(one.message))
            yield f"| {where} | {one.kind} | {why} |\n".encode()
        if omitted := report.failure_count - len(shown):
            yield f"\n... and {format_count(omitted, 'more failure')}.\n".encode()


def _written(report: Report) -> str:
    written = f"{report.tally.written:,}"
    return f"{written} to {_cell(printable(report.sink.display_name))}" if report.sink else written


def _sources(report: Report) -> Iterator[bytes]:
    """Yield the table of sources, if the report has them."""
    if not report.sources:
        return
    yield b"\n| source | state | inputs | failed | pages | records | rejected |\n"
    yield b"| --- | --- | --- | --- | --- | --- | --- |\n"
    for source in report.sources:
        tally = source.tally
        pages = f"{source.traffic.pages:,}" if source.traffic else ""
        inputs = f"{tally.files:,} | {tally.failed:,} | {pages}"
        records = f"{tally.read:,} | {tally.rejected:,}"
        name = _cell(printable(source.name))
        yield f"| {name} | {source.state} | {inputs} | {records} |\n".encode()


def _cell(text: str) -> str:
    """Escape `text`, so that it cannot end the cell or begin a tag, code, a link or a mention."""
    text = _MARKUP.sub(r"\\\g<0>", _ESCAPES.sub(r"\\\\", text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")


def _code(text: str) -> str:
    """Return `text` as code in a cell. Nothing is escaped in code, except for a bar."""
    if "\\|" in text:  # a backslash before the bar would be taken for the escape of the bar
        return f"<code>{_PUNCTUATION.sub(lambda sign: f'&#{ord(sign[0])};', text)}</code>"
    fence = "`" * (max(map(len, _BACKTICKS.findall(text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    bars = text.replace("|", "\\|")
    return f"{fence}{space}{bars}{space}{fence}"
