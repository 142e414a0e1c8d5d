"""Windows into a table: of a database, where each has its row for good, or of a Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.errors import UsageError
from asyncbatch.retrying import Retrier, Retries
from asyncbatch.sinks.block import make_block
from asyncbatch.sinks.sql import fold
from asyncbatch.streams.table_rows import WindowRows, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.sinks.target import Target
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

_RETRIES = Retries(5, 0.5)
"""A database that somebody has locked, or a server that is started again, has half a minute."""
_PATIENCE = 1.0
"""Seconds that windows wait for each other where a load costs much."""


class WindowTable:
    """Rows of windows; one that is told from none by its start and key takes its place."""

    def __init__(self, target: Target, stream: Stream) -> None:
        self.name, self._target = target.name, target
        self._made = WindowRows(stream, fold if target.form in ("sqlite", "duckdb") else str)
        self._sink: Any = target.open_sink(retrier=Retrier(_RETRIES))  # databases can do more
        self.patience = 0.0 if target.form in ("sqlite", "postgres") else _PATIENCE

    def check_keeps(self) -> None:
        """Refuse a Parquet file; see `WindowTarget`."""
        if not self._target.is_database:
            raise UsageError(
                f"--to {self.name}: a Parquet file is complete at its end or not there, so no "
                "process can go on with it: with --checkpoint, write JSON Lines, CSV or a table"
            )

    def open(self, place: Any = None, gone: Sequence[Window] = ()) -> None:  # noqa: ANN401, ARG002 - rows have no place
        """Connect, and take away rows that are `gone`; see `WindowTarget`."""
        self._sink.open()
        if gone:
            self._sink.remove(self._block(self._made.keys_of(gone)))
            self._sink.commit()

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """Return rows; see `WindowTarget`."""
        return self._made.of(windows)

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        """Load rows, which are then there for all to see; see `WindowTarget`."""
        refusals = self._sink.load(self._block(rows))
        self._sink.commit()
        return [f"{told(rows[one.row], self._made.key)}: {one.message}" for one in refusals]

    def place(self) -> None:
        """Have all that was loaded on the disk; see `WindowTarget`."""
        if self._target.form == "sqlite":
            self._sink.sync()

    def finish(self, *, ended: bool) -> None:
        """Disconnect; see `WindowTarget`."""
        self._sink.finish(succeeded=ended, ended=ended)

    def _block(self, rows: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401 - the sink's
        return make_block(rows, rich=self._target.has_rich_types)
