"""Reports in the formats of other programs: JSON, JUnit, Markdown, GitHub, Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.report import Report


class Renderer(Protocol):
    """Makes one document of one run, piece by piece, in bounded memory."""

    def part(self, found: BatchPart) -> bytes:
        """Return what is to be written now that these files are done."""
        ...

    def finish(self, report: Report, command: str, exit_code: int) -> Iterable[bytes]:
        """Yield what is to be written at the end of the run of `command`."""
        ...
