"""Findings for code reviews: SARIF for code scanning, and GitLab's code quality.

A finding is a failure, or one violation of a schema. The formats:
https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from asyncbatch._version import __version__
from asyncbatch.cli.render.kinds import KINDS
from asyncbatch.core.batches import BatchPart
from asyncbatch.core.report import MAX_LISTED_FAILURES
from asyncbatch.core.units import format_count, printable
from asyncbatch.formats.decoder import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.cli.render import Outcomes, Renderer
    from asyncbatch.core.records import Failure, FailureKind
    from asyncbatch.core.report import AnyReport

# GitHub refuses more results of one run. The others are counted.
MAX_FINDINGS = 25_000

SARIF_BEGINNING = b'{"version":"2.1.0","$schema":"https://json.schemastore.org/sarif-2.1.0.json"'
# The blank tells a report without findings from any other empty array.
GITLAB_BEGINNINGS = (b'[{"check_name":"asyncbatch/', b"[ ]")

_ITEMS_PER_WRITE = 1000
T = TypeVar("T")
_LINK = re.compile(r"\](?=\()")


class Finding(NamedTuple):
    """One failure or violation, and its place. `fingerprint` is the same in each run."""

    kind: FailureKind
    rule: str  # the kind; for a violation with the keyword of the schema
    file: str
    message: str
    line: int | None
    column: int | None
    pointer: str | None
    fingerprint: str


def failure_limit(renderer: Renderer | None) -> int:
    """Return the number of failures of a report that a renderer needs."""
    return MAX_FINDINGS if isinstance(renderer, _Findings) else MAX_LISTED_FAILURES


def find(report: AnyReport) -> Iterator[Finding]:
    """Yield the findings of a report, in input order."""
    seen: Counter[str] = Counter()
    for failure in report.failures:
        for rule, message, line, column, pointer in _parts(failure):
            # Without the line: an edit above moves a finding, and it stays the same one.
            told = "\0".join((failure.file, rule, pointer or "", message))
            digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            seen[digest] += 1
            number = seen[digest]
            yield Finding(
                failure.kind, rule, failure.file, printable(message), line, column, pointer,
                digest if number == 1 else f"{digest}-{number}",
            )  # fmt: skip


_Part = tuple[str, str, int | None, int | None, str | None]


def _parts(failure: Failure) -> Iterator[_Part]:
    """Yield the rule, message, line, column and pointer of each violation of a failure."""
    place = failure.line, failure.column
    if not failure.violations:
        pointer = failure.pointer if isinstance(failure.pointer, str) else None
        yield failure.kind, failure.message, *place, pointer
    for one in failure.violations or ():
        line, column = place if one.line is None else (one.line, one.column)
        yield f"{failure.kind}/{one.rule}", one.message, line, column, one.pointer


class _Findings:
    """A renderer of the first findings."""

    def part(self, found: Outcomes) -> bytes:  # noqa: ARG002 - `finish` uses the report
        """Return nothing: `finish` yields the findings in input order."""
        return b""

    @staticmethod
    def _first(report: AnyReport) -> tuple[list[Finding], str | None]:
        """Return the findings to list, and a remark about failures that they leave out."""
        found = list(islice(find(report), MAX_FINDINGS + 1))
        more = report.failure_count - len(report.failures)
        if len(found) > MAX_FINDINGS:
            return found[:MAX_FINDINGS], f"only the first {MAX_FINDINGS:,} findings are listed"
        return found, f"{format_count(more, 'more failure')} not listed" if more > 0 else None


def _items(found: Sequence[T], make: Callable[[T], dict[str, Any]]) -> Iterator[bytes]:
    """Yield the items of an array, a line each; many at once, for each write wakes a thread."""
    for start in range(0, len(found), _ITEMS_PER_WRITE):
        lines = [encode(make(one)) for one in found[start : start + _ITEMS_PER_WRITE]]
        yield (b",\n" if start else b"") + b",\n".join(lines)


class Sarif(_Findings):
    """A renderer of SARIF 2.1.0. The URI of a file has the bytes of its name, also if not UTF-8."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}  # by their display names, of paths that are not UTF-8

    def part(self, found: Outcomes) -> bytes:
        if isinstance(found, BatchPart) and len(self._paths) < MAX_FINDINGS:
            self._paths.update(found.unshown_paths())
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the document."""
        findings, remark = self._first(report)
        rules = {one.rule: one.kind for one in findings}
        places = {rule: place for place, rule in enumerate(rules)}
        notes = [("note", note) for note in (remark, *report.notes) if note]
        if report.error is not None:
            notes.insert(0, ("error", report.error))
        ended = report.started_at + timedelta(seconds=report.elapsed_s)
        run = {
            "tool": {
                "driver": {
                    "name": "asyncbatch",
                    "version": __version__,
                    "rules": [_rule(rule, kind) for rule, kind in rules.items()],
                }
            },
            "columnKind": "unicodeCodePoints",
            "invocations": [
                {
                    "executionSuccessful": report.error is None and report.status != "interrupted",
                    "exitCode": exit_code,
                    "startTimeUtc": _utc(report.started_at),
                    "endTimeUtc": _utc(ended),
                    "toolExecutionNotifications": [
                        {"level": level, "message": _message(text)} for level, text in notes
                    ],
                }
            ],
            "automationDetails": {"id": f"asyncbatch/{command}/"},
        }
        head = encode(run)[:-1]
        yield SARIF_BEGINNING + b',"runs":[' + head + b',"results":['
        yield from _items(
            findings,
            lambda one: _result(one, places[one.rule], self._paths.get(one.file, one.file)),
        )
        yield b"]}]}\n"


def _rule(rule: str, kind: FailureKind) -> dict[str, Any]:
    _, _, keyword = rule.partition("/")
    meaning = f"A record breaks {keyword!r} of its JSON Schema." if keyword else KINDS[kind].meaning
    remedy = KINDS[kind].remedy
    return {
        "id": rule,
        "shortDescription": {"text": meaning},
        "help": {"text": remedy.replace("`", ""), "markdown": remedy},
    }


def _result(finding: Finding, rule: int, file: str) -> dict[str, Any]:
    # A finding without a line is about the whole file, and is shown at its beginning.
    region: dict[str, Any] = {"startLine": finding.line or 1}
    if finding.line is not None and finding.column is not None:
        region["startColumn"] = finding.column
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": _artifact(file), "region": region}
    }
    if finding.pointer is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.pointer, "kind": "value"}]
    return {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": "error",
        "message": _message(finding.message),
        "locations": [location],
        "partialFingerprints": {"failure/v1": finding.fingerprint},
    }


def _artifact(file: str) -> dict[str, str]:
    """Return the location of a file: a relative one below the root of the repository."""
    if "://" in file:
        return {"uri": quote(file, safe="/:?&=%@#+,;[]~!$'()*")}
    try:
        data = file.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, which no name of a file has
        data = file.encode("utf-8", "surrogatepass")
    path = quote(data.removeprefix(b"./"))
    return {"uri": f"file://{path}"} if path[:1] == "/" else {"uri": path, "uriBaseId": "%SRCROOT%"}


def _message(text: str) -> dict[str, str]:
    """Return a text as a message without links, which data could put into it."""
    return {"text": _LINK.sub("] ", printable(text))}


def _utc(time: Any) -> str:
    return str(time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


class GitlabQuality(_Findings):
    """A renderer of GitLab's code quality report."""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:  # noqa: ARG002 - the format has no place for these
        """Yield the document."""
        findings, remark = self._first(report)
        first = [] if report.error is None else [_summary(report.error, "blocker")]
        last = [] if remark is None else [_summary(remark, "info")]
        entries = [*first, *map(_entry, findings), *last]
        yield b"[" if entries else b"[ "
        yield from _items(entries, lambda one: one)
        yield b"]\n"


def _entry(finding: Finding) -> dict[str, Any]:
    return {
        "check_name": f"asyncbatch/{finding.rule}",
        "description": finding.message,
        "fingerprint": finding.fingerprint,
        "severity": "major",
        "location": {
            "path": finding.file.removeprefix("./"),
            "lines": {"begin": finding.line or 1},
        },
    }


def _summary(text: str, severity: str) -> dict[str, Any]:
    """Return an entry about the whole run."""
    return {
        "check_name": "asyncbatch/run",
        "description": printable(text),
        "fingerprint": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        "severity": severity,
        "location": {"path": ".", "lines": {"begin": 1}},
    }
