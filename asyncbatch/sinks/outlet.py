"""A worker's end of a target: rows written there and then, or made ready to travel."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from asyncbatch.codec.compression import named
from asyncbatch.codec.encode import encode, encode_lines
from asyncbatch.records import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.settings import Format
    from asyncbatch.sinks.folder import FolderOutput
    from asyncbatch.sinks.target import Target


class Found(Protocol):
    """Rows, and the records that they were made of."""

    rows: list[Any]
    places: list[int]
    records: list[int]
    lines: list[int | None]
    originals: list[bytes]
    several: bool
    finished: list[int]


class Outlet:
    """Of no target: rows are counted where they are made, and go nowhere."""

    names_origins = False
    """Whether each row must say of which record it was made."""
    takes_texts = False
    """Whether a row may also be JSON text: `msgspec.Raw`, compact."""

    def begin(self, path: str) -> None:
        """Begin with the file at `path`."""

    def take(self, found: Found, *, single: bool) -> None:  # noqa: ARG002 - what others need
        """Take rows of the file as they come. Raises OutputError."""
        found.rows.clear()

    def end(self) -> int:
        """End the file that was begun; return how many rows it has now. Raises OutputError."""
        return 0

    def discard(self) -> None:
        """End the file that was begun; nothing of it counts."""

    def pack(self, found: Found) -> Rows | None:  # noqa: ARG002 - what others need
        """Return rows, of any number of files, as the sink in the main process takes them."""
        return None


class LinesOutlet(Outlet):
    """Of JSON Lines: the worker encodes and compresses them."""

    takes_texts = True

    def __init__(self, target: Target) -> None:
        self._compression = named(target.path) if target.form == "lines" else None

    def take(self, found: Found, *, single: bool) -> None:
        """Leave the rows to `pack`."""

    def pack(self, found: Found) -> Rows | None:
        """See `Outlet`."""
        if not found.rows:
            return None
        if len(found.finished) < 2:
            lines = encode_lines(found.rows)
            ends = [len(lines)] * max(1, len(found.finished))
        else:
            pieces = [
                encode_lines(found.rows[start:end]) for start, end in pairwise((0, *found.finished))
            ]
            lines = b"".join(pieces)
            ends = list(accumulate(map(len, pieces)))
        if self._compression:
            lines = self._compression.compress(lines)
        return Rows(lines, len(found.rows), ends=ends)


class TableOutlet(Outlet):
    """Of tables: rows become columns."""

    names_origins = True

    def __init__(self, target: Target) -> None:
        # Among columns, a field that is null is one that is missing; where the first rows' fields
        # are all that there can be, that matters.
        self._pack: Callable[[list[Any]], bytes] = encode
        if target.columns_grow:
            from asyncbatch.sinks.block import make_block  # noqa: PLC0415 - only tables need it

            rich = target.has_rich_types
            self._pack = lambda rows: make_block(rows, rich=rich).to_bytes()

    def take(self, found: Found, *, single: bool) -> None:
        """Leave the rows to `pack`."""

    def pack(self, found: Found) -> Rows | None:
        """See `Outlet`. Raises SinkError."""
        if not found.rows:
            return None
        origins = found.places, found.records, found.lines, found.originals, found.several
        return Rows(self._pack(found.rows), len(found.rows), *origins)


class FolderOutlet(Outlet):
    """Of a folder: the worker writes."""

    def __init__(self, output: FolderOutput) -> None:
        self._output = output
        self.begin, self.end, self.discard = output.begin, output.end, output.discard  # type: ignore[method-assign]  # handed on as they are

    def take(self, found: Found, *, single: bool) -> None:
        """See `Outlet`."""
        self._output.write(found.rows, single=single)
        found.rows.clear()


def make_outlet(target: Target | None, form: Format) -> Outlet:
    """Return the worker's end of `target`, for inputs of this form."""
    if target is None:
        return Outlet()
    if target.form == "folder":
        from asyncbatch.sinks.folder import FolderOutput  # noqa: PLC0415 - one of them

        return FolderOutlet(FolderOutput(target, form))
    return TableOutlet(target) if target.is_table else LinesOutlet(target)
