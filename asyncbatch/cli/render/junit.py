"""JUnit XML for CI servers, with one test case per file."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from html import escape
from typing import IO, TYPE_CHECKING

from asyncbatch.core.records import Failure, FileResult
from asyncbatch.core.report import Report
from asyncbatch.core.units import format_location, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.report import AnyReport

MAX_REJECTIONS = 20  # rejected records listed per test case; the rest is only counted
_SPOOL_BYTES = 4 * 1024 * 1024  # test cases beyond this size go to a temporary file
_CHUNK_BYTES = 64 * 1024


class Junit:
    """A renderer of JUnit XML, as the schema of Jenkins' xUnit plugin has it (junit-10.xsd).

    It spools the test cases, because the counts come first in the document.
    """

    def __init__(self) -> None:
        self._cases: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - `finish` closes it
        self._rejections: defaultdict[str, list[Failure]] = defaultdict(list)

    def part(self, found: Outcomes) -> bytes:
        """Spool the test cases and return nothing. Raises OSError if the disk is full."""
        for outcome in found.outcomes():
            if isinstance(outcome, FileResult):
                shown = self._rejections.pop(outcome.file, [])
                self._cases.write(_case(outcome, shown).encode())
            elif (
                isinstance(outcome, Failure)
                and len(self._rejections[outcome.file]) < MAX_REJECTIONS
            ):
                self._rejections[outcome.file].append(outcome)
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:  # noqa: ARG002 - JUnit has no exit status
        """Yield the document."""
        assert isinstance(report, Report)  # a stream has no test cases: see `ReportFile`
        tally, errors = report.tally, int(report.error is not None)
        counts = (
            f'tests="{tally.files + errors}" failures="{tally.failed + tally.partial}" '
            f'errors="{errors}" time="{report.elapsed_s:.3f}"'
        )
        skipped = f'skipped="{tally.skipped}"'
        started = report.started_at.strftime("%Y-%m-%dT%H:%M:%S")
        head = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<testsuites name="asyncbatch" {counts}>\n'
            f'<testsuite name="{command}" timestamp="{started}" {skipped} {counts}>\n'
        )
        yield head.encode()
        self._cases.seek(0)
        while chunk := self._cases.read(_CHUNK_BYTES):
            yield chunk
        self._cases.close()
        if report.error is not None:
            message = _attribute(report.error)
            case = f'<testcase classname="asyncbatch" name="{command}" time="0.000000">'
            yield f"{case}<error message={message}/></testcase>\n".encode()
        yield b"</testsuite>\n</testsuites>\n"


def _case(result: FileResult, rejections: list[Failure]) -> str:
    folder, _, name = result.file.rpartition("/")
    classname = _attribute(folder or ".")
    case = (
        f"<testcase classname={classname} name={_attribute(name)} "
        f'time="{result.elapsed_ms / 1000:.6f}"'
    )
    if result.status == "skipped":
        return f"{case}><skipped message={_attribute(result.reason)}/></testcase>\n"
    failures = rejections or ([result.error] if result.error else [])
    if not failures:
        return f"{case}/>\n"
    first = failures[0]
    lines = [f"{format_location(failure)}: {printable(failure.message)}" for failure in failures]
    if (omitted := result.rejected - len(rejections)) > 0 and rejections:
        lines.append(f"... and {omitted:,} more")
    body = escape("\n".join(lines), quote=False)
    message = _attribute(first.message)
    return f'{case}><failure type="{first.kind}" message={message}>{body}</failure></testcase>\n'


def _attribute(text: str) -> str:
    return f'"{escape(printable(text))}"'
