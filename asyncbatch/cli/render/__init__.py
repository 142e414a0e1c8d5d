"""Reports in the formats of other programs: JSON, JUnit, Markdown, GitHub, Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report


class Renderer(Protocol):
    """Renders one run as one document, part by part, in bounded memory."""

    def part(self, found: BatchPart) -> bytes:
        """Return the text about these finished files."""
        ...

    def finish(self, report: Report, command: str, exit_code: int) -> Iterable[bytes]:
        """Yield the text at the end of the run of `command`."""
        ...
