"""Windows as lines of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.codec.encode import encode_lines
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window


def window_lines(stream: Stream, windows: Sequence[Window]) -> bytes:
    """Return a line for each window and key."""
    return encode_lines(
        [
            {
                "event": "window",
                "window_start": utc_text(window.start),
                "window_end": utc_text(window.end),
                "key": stream.keys.named(window.key),
                "aggregates": stream.recipe.results(window.totals),
                **({"partial": True} if window.partial else {}),
            }
            for window in windows
        ]
    )
