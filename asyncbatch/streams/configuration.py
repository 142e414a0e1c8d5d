"""What makes two streams the same, in words: who goes on with another is told the difference."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.fingerprint import describe_transforms
from asyncbatch.sinks.address import without_password
from asyncbatch.windows.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.streams.settings import StreamSettings

_NOTHING = "nothing"


def configuration(
    settings: StreamSettings, sources: Sequence[str], files: Mapping[str, str | None]
) -> dict[str, str]:
    """Return what the windows depend on, by the names of options, and where they go.

    `files` are other options that name files or databases. How many keys there may be, and who
    works, is free. Raises UsageError.
    """
    told = {f"SOURCE {number}": _place(name) for number, name in enumerate(sources, 1)}
    told |= {
        "--window": str(settings.window),
        "--time": settings.time or "arrival",
        "--time-unit": settings.unit,
        "--by": ", ".join(settings.by),
        "--agg": ", ".join(
            f"{one.name}={one.kind}{one.field and ':'}{one.field}" for one in settings.aggregates
        ),
        "--lateness": format_duration(settings.lateness),
        "--idle-timeout": _span(settings.idle),
        "--max-future": _span(settings.max_future),
        "--overflow-key": settings.overflow_key or "",
    }
    for number, (words, digest) in enumerate(describe_transforms(settings.transforms), 1):
        told[f"transform {number}"] = f"{words} ({digest})"
    told |= {name: _place(path) for name, path in files.items() if path}
    return told


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield what is no longer as it was, in words."""
    for name in dict.fromkeys((*before, *now)):
        was, has_become = before.get(name) or _NOTHING, now.get(name) or _NOTHING
        if was != has_become:
            yield f"{name} was {was}, and is now {has_become}"


def _span(micros: int | None) -> str:
    return "" if micros is None else format_duration(micros)


def _place(name: str) -> str:
    """Return a path as it is named from everywhere; what is none stays, but for passwords."""
    return without_password(name) if name == "-" or ":" in name else os.path.realpath(name)
