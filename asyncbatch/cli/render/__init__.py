"""Renderers of reports: JSON, JUnit, Markdown, GitHub, Prometheus.

A renderer returns bytes and writes nothing. May import core, formats and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report


class Renderer(Protocol):
    """A renderer of one run as one document.

    Call `part` for each part, then `finish` once. Memory stays bounded.
    """

    def part(self, found: BatchPart) -> bytes:
        """Return the text about some finished files, or nothing."""
        ...

    def finish(self, report: Report, command: str, exit_code: int) -> Iterable[bytes]:
        """Yield the rest of the document. `command` is the name of the command."""
        ...
