"""Windows into a file that grows: JSON Lines, or comma-separated values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import convert

from asyncbatch.codec.compression import named
from asyncbatch.sinks.csv import csv_lines
from asyncbatch.streams.lines import window_lines
from asyncbatch.streams.side_file import FilePlace, SideFile
from asyncbatch.streams.table_rows import WindowRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

_PATIENCE = 1.0
"""Seconds that windows wait to be compressed together."""


class WindowFile:
    """Lines of JSON, as on standard output; compressed if the name says so, member by member."""

    def __init__(self, path: str, stream: Stream) -> None:
        self.name, self._stream = path, stream
        self.file = SideFile(path)
        self._compression = named(path)
        self.patience = _PATIENCE if self._compression else 0.0

    def check_keeps(self) -> None:
        """Refuse pipes and devices; see `WindowTarget`."""
        self.file.check_regular()

    def open(self, place: Any = None, gone: Sequence[Window] = ()) -> None:  # noqa: ANN401, ARG002 - what is gone comes behind the place
        """Begin, or cut the file back to a place; see `WindowTarget`."""
        self.file.open(None if place is None else convert(place, FilePlace))

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """Return lines; see `WindowTarget`."""
        return window_lines(self._stream, windows).splitlines(keepends=True)

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        """Write lines; see `WindowTarget`."""
        lines = b"".join(rows)
        self.file.write(self._compression.compress(lines) if self._compression else lines)
        return ()

    def place(self) -> FilePlace:
        """Return where the file ends; see `WindowTarget`."""
        return self.file.place()

    def finish(self, *, ended: bool) -> None:  # noqa: ARG002 - what is written stands
        """Close the file; see `WindowTarget`."""
        try:
            self.file.sync()
        finally:
            self.file.close()


class WindowCsv(WindowFile):
    """Comma- or tab-separated values below a header."""

    def __init__(self, path: str, stream: Stream) -> None:
        super().__init__(path, stream)
        self._made = WindowRows(stream)
        self._delimiter = "\t" if path.lower().endswith(".tsv") else ","

    def open(self, place: Any = None, gone: Sequence[Window] = ()) -> None:  # noqa: ANN401 - JSON
        """Begin with a header, or go on; see `WindowTarget`."""
        super().open(place, gone)
        if place is None:
            self.file.write(b"".join(csv_lines([self._made.columns], self._delimiter)))

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """Return the cells of each window; see `WindowTarget`."""
        return [list(map(_cell, row.values())) for row in self._made.of(windows)]

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        """Write rows; see `WindowTarget`."""
        self.file.write(b"".join(csv_lines(rows, self._delimiter)))
        return ()


def _cell(value: Any) -> Any:  # noqa: ANN401 - JSON
    return value if type(value) is not bool else "true" if value else "false"
