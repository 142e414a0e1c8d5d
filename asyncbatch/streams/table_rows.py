"""Windows as rows of a table."""

from __future__ import annotations

import sys
from collections import Counter
from math import copysign
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.errors import UsageError
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

START, END, KEY, PARTIAL = "window_start", "window_end", "window_key", "partial"
TIMES = (START, END)
_SECOND = 1_000_000
_EXACT = 2**53
"""Integers up to this one are doubles, too."""


class WindowRows:
    """Makes rows of windows: two times, the key as JSON, its fields, the aggregates, `partial`.

    The key is there as JSON, too, because in the columns of its fields 1, true and "1" may become
    one, depending on what else is there. All times have as many digits, so that texts sort as
    times do. Raises UsageError for columns of one name, `fold` telling which names are one.
    """

    def __init__(self, stream: Stream, fold: Callable[[str], str] = str) -> None:
        self._stream = stream
        aggregates = [one.name for one in stream.recipe.aggregates]
        self.key = row_key(stream)
        self.columns = (*TIMES, *self.key[1:], *stream.keys.names, *aggregates, PARTIAL)
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
        results = self._stream.recipe.results
        rows = []
        for window in windows:
            fields = self._stream.keys.named(window.key)
            row: dict[str, Any] = {
                START: self._text(window.start),
                END: self._text(window.end),
                KEY: encode(fields).decode(),
                **fields,
                **{name: _number(value) for name, value in results(window.totals).items()},
                PARTIAL: window.partial,
            }
            if not fields:
                del row[KEY]
            rows.append(row)
        return rows

    def keys_of(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """Return of each window what tells its row from others."""
        return [{name: row[name] for name in self.key} for row in self.of(windows)]

    def _text(self, micros: int) -> str:
        text = utc_text(micros)
        return text if self._is_whole or "." in text else f"{text[:-1]}.000000Z"


def row_key(stream: Stream) -> tuple[str, ...]:
    """Return the columns that tell rows apart: no two sessions of a key begin together."""
    return (START, KEY) if stream.keys.names else (START,)


def told(row: dict[str, Any], key: Sequence[str]) -> str:
    """Return which window a row is of."""
    return "window " + " ".join(str(row[name]) for name in key)


def _number(value: Any) -> Any:  # noqa: ANN401 - an int is a float to mypy
    """Return an aggregate as a column of numbers holds it, whether it has floats so far or not."""
    if type(value) is not int or abs(value) <= _EXACT:
        return value
    try:
        return float(value)
    except OverflowError:
        return copysign(sys.float_info.max, value)
