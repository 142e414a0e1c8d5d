"""Windows as rows of a table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.errors import UsageError
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

START, END, PARTIAL = "window_start", "window_end", "partial"
TIMES = (START, END)
_SECOND = 1_000_000


class WindowRows:
    """Makes rows of windows: two times, the fields of the key, the aggregates, `partial`.

    All times have as many digits, so that texts sort as times do. Raises UsageError for columns
    of one name, `fold` telling which names are one.
    """

    def __init__(self, stream: Stream, fold: Callable[[str], str] = str) -> None:
        self._stream = stream
        aggregates = [one.name for one in stream.recipe.aggregates]
        self.columns = (*TIMES, *stream.keys.names, *aggregates, PARTIAL)
        self.key = (START, *stream.keys.names)
        """What tells rows from each other: no two sessions of a key begin together."""
        names = Counter(map(fold, self.columns))
        if doubled := next((name for name in self.columns if names[fold(name)] > 1), None):
            raise UsageError(
                f"two columns would be called {doubled!r}: give an aggregate another name "
                "(--agg NAME=...), or rename the field (--jq)"
            )
        window = stream.settings.window
        self._is_whole = window.kind != "session" and not (window.pane % _SECOND)

    def of(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """Return a row for each window."""
        results, named = self._stream.recipe.results, self._stream.keys.named
        return [
            {
                START: self._text(window.start),
                END: self._text(window.end),
                **named(window.key),
                **results(window.totals),
                PARTIAL: window.partial,
            }
            for window in windows
        ]

    def keys_of(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """Return of each window what tells its row from others."""
        named = self._stream.keys.named
        return [{START: self._text(one.start), **named(one.key)} for one in windows]

    def _text(self, micros: int) -> str:
        text = utc_text(micros)
        return text if self._is_whole or "." in text else f"{text[:-1]}.000000Z"


def one_of_each(
    rows: Sequence[dict[str, Any]], key: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return rows less those that a table cannot tell from one before, and why they are left out.

    1, true and "1" are different keys, but in a column they may become one.
    """
    seen: dict[tuple[str, ...], dict[str, Any]] = {}
    refused = []
    for row in rows:
        other = seen.setdefault(tuple(_in_column(row[name]) for name in key), row)
        if other is not row:
            clash = [name for name in key if type(row[name]) is not type(other[name])]
            refused.append(
                f"{told(row, key)}: in a column, {', '.join(clash)} cannot be told from that of "
                f"{told(other, key)}"
            )
    return list(seen.values()), refused


def told(row: dict[str, Any], key: Sequence[str]) -> str:
    """Return which window a row is of."""
    return "window " + " ".join(f"{name}={row[name]!r}" for name in key)


def _in_column(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return what may become of a value, the same for all that may become the same."""
    if type(value) is bool or value in ("true", "false"):
        value = int(value in (True, "true"))
    return value if type(value) is str else encode(value).decode()
