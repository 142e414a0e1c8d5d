"""What a program names as the sources of a stream, made into sources."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncbatch.drawing import name_of, numbered
from asyncbatch.errors import UsageError
from asyncbatch.streams.given import GivenSource
from asyncbatch.streams.opening import open_path
from asyncbatch.streams.simulator import Simulator
from asyncbatch.streams.sources import SimulatedSource

if TYPE_CHECKING:
    from asyncbatch.streams.chunks import Source
    from asyncbatch.streams.opening import Reading

    Origin: TypeAlias = AsyncIterable[Any] | Iterable[Any] | str | os.PathLike[str]
    """Where events come from: an iterable of a program, or a name as on the command line."""

SIMULATE = "simulate:"


def make_sources(origin: Origin | Sequence[Origin], reading: Reading) -> list[Source]:
    """Return one source or several. Raises UsageError for what is none, or cannot be read."""
    origins = list(_origins(origin))
    if reading.follow and not any(isinstance(one, str | os.PathLike) for one in origins):
        raise UsageError("follow is for files and folders")
    names = numbered(map(_name, origins))
    made: list[Source] = []
    try:
        for name, one in zip(names, origins, strict=True):
            made.append(_source(name, one, reading))
    except BaseException:
        for source in made:
            source.close()
        raise
    return made


def _origins(origin: Any) -> Iterator[Origin]:  # noqa: ANN401 - whatever a program gives
    several = origin if isinstance(origin, list | tuple) and any(map(_is_origin, origin)) else None
    for one in [origin] if several is None else several:
        if isinstance(one, Mapping | bytes) or not isinstance(one, _KINDS):
            advice = ": call it" if callable(one) else ""
            raise UsageError(f"{one!r} is no source of events{advice}")
        yield one


_KINDS = (str, os.PathLike, AsyncIterable, Iterable)


def _is_origin(item: object) -> bool:
    """Whether an item of a list is a source by itself, and no event."""
    return isinstance(item, AsyncIterable | Iterator | os.PathLike | str)


def _name(origin: Origin) -> str:
    return os.fspath(origin) if isinstance(origin, str | os.PathLike) else name_of(origin)


def _source(name: str, origin: Origin, reading: Reading) -> Source:
    if not isinstance(origin, str | os.PathLike):
        return GivenSource(name, origin)
    path = os.fspath(origin)
    if path != name:
        raise UsageError(f"{path} is there twice: each source is read once")
    if path == SIMULATE:
        return SimulatedSource(name, Simulator(time.time_ns() // 1000))
    if ":" in path and not os.path.exists(path):
        raise UsageError(f"{path!r} is no source: write '-', a file's name, or 'simulate:'")
    return open_path(path, reading)
