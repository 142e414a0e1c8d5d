"""Renderers of reports: JSON, JUnit, Markdown, HTML, GitHub, SARIF, GitLab, Prometheus.

A renderer returns bytes and writes nothing. May import core, formats and errors; the HTML page has
the sentences of the text output, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from msgspec import Raw

    from asyncbatch.core.records import Failure, FileResult
    from asyncbatch.core.report import AnyReport


class Outcomes(Protocol):
    """A part of the outcome of a run or stream."""

    def outcomes(self) -> Iterator[Failure | FileResult | Raw]:
        """Yield rejected records, finished files, and closed windows as JSON."""
        ...


class Renderer(Protocol):
    """A renderer of one run or stream as one document.

    Call `part` for each part, then `finish` once. Memory stays bounded.
    """

    def part(self, found: Outcomes) -> bytes:
        """Return the text about some finished files or windows, or nothing."""
        ...

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterable[bytes]:
        """Yield the rest of the document. `command` is the name of the command."""
        ...


@runtime_checkable
class SamplingRenderer(Renderer, Protocol):
    """A renderer of the course of the work. It shows the settings, too."""

    def update(self, report: AnyReport) -> None:
        """Take values of the report, which is that of this moment."""
        ...
