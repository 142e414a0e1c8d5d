"""A summary in Markdown, for a pull request or the page of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncbatch.core.report import StreamReport
from asyncbatch.core.units import (
    format_count,
    format_location,
    format_seconds,
    format_size,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.report import AnyReport, Report

MAX_FAILURES = 50

_BACKTICKS = re.compile("`+")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_MARKUP = re.compile(r"[|`\[*~]")
_ESCAPES = re.compile(rf"\\(?={_PUNCTUATION.pattern})")  # a backslash that escapes the next sign


class Markdown:
    """A renderer of two tables: the counts, and the first failures."""

    def part(self, found: Outcomes) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the summary."""
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        if isinstance(report, StreamReport):
            subject, rows = format_count(report.tally.read, "event"), _stream_rows(report)
        else:
            subject, rows = format_count(report.tally.files, report.input_noun), _run_rows(report)
        rows["time"] = format_seconds(report.elapsed_s)
        rows["peak memory"] = format_size(report.peak_memory_bytes)
        yield f"### asyncbatch {command}: {report.status}, {subject}\n\n".encode()
        yield b"| | |\n| --- | --- |\n"
        yield "".join(f"| {label} | {value} |\n" for label, value in rows.items()).encode()
        yield f"\nExit status {exit_code}.\n".encode()
        if report.error is not None:
            yield f"\nError: {_cell(printable(report.error))}\n".encode()
        if not isinstance(report, StreamReport):
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


def _run_rows(report: Report) -> dict[str, str]:
    tally = report.tally
    return {
        "succeeded": f"{tally.succeeded:,}",
        "partial": f"{tally.partial:,}",
        "failed": f"{tally.failed:,}",
        "records": f"{tally.read:,} read, {tally.rejected:,} rejected",
        **({"written": _written(report)} if report.target or tally.written else {}),
        "size": format_size(tally.bytes),
    }


def _stream_rows(report: StreamReport) -> dict[str, str]:
    tally = report.tally
    return {
        "in windows": f"{tally.events:,}",
        "late": f"{tally.late:,}",
        "rejected": f"{tally.rejected:,}",
        "dropped": f"{tally.dropped:,}",
        **({"lost": format_count(tally.lost, "time")} if tally.lost else {}),
        "windows": f"{tally.windows:,}"
        + (f", {tally.refused:,} refused by the target" if tally.refused else ""),
    }


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
