"""Annotations for GitHub Actions.

The syntax: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.core.report import StreamReport
from asyncbatch.core.units import format_count, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.records import Failure
    from asyncbatch.core.report import AnyReport

# GitHub shows at most this number of errors per step. The last one counts the rest.
MAX_ANNOTATIONS = 10


class Github:
    """A renderer of the first failures as annotations, with a summary line."""

    def part(self, found: Outcomes) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the annotations in input order."""
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:  # noqa: ARG002 - GitHub shows the status of the step
        """Yield the annotations and the summary line."""
        total = report.failure_count
        shown = report.failures[: MAX_ANNOTATIONS - (total > MAX_ANNOTATIONS)]
        for failure in shown:
            yield _error(failure).encode()
        if omitted := total - len(shown):
            more = format_count(omitted, "more failure")
            yield f"::error title=asyncbatch::... and {more}\n".encode()
        if isinstance(report, StreamReport):
            counts = format_count(report.tally.read, "event")
        else:
            files = format_count(report.tally.files, report.input_noun)
            counts = f"{files}, {report.tally.succeeded:,} succeeded"
        yield f"asyncbatch {command}: {report.status}, {counts}\n".encode()


def _error(failure: Failure) -> str:
    properties = {"file": failure.file, "title": f"asyncbatch: {failure.kind}"}
    if failure.line is not None:
        properties["line"] = str(failure.line)
    if failure.column is not None:
        properties["col"] = str(failure.column)
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {listed}::{_data(printable(failure.message))}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    # Line ends first: GitHub has its own escapes for them. A log shows all else to a terminal.
    return printable(_data(text)).replace(":", "%3A").replace(",", "%2C")
