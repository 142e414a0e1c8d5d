"""Live sources, opened from paths, iterables and options."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from asyncbatch.core.paths import is_archive_name
from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError
from asyncbatch.sources.base import ARCHIVE_ADVICE
from asyncbatch.sources.iterables import IterableSource, source_name, unique_names
from asyncbatch.sources.live.pipe import PipeSource
from asyncbatch.sources.live.simulator import SimulatedSource, Simulator
from asyncbatch.sources.selection import Selection

if TYPE_CHECKING:
    from asyncbatch.sources.base import LiveSource

    # The origin of events: an iterable of a program, or a path as on the command line.
    Origin: TypeAlias = AsyncIterable[Any] | Iterable[Any] | str | os.PathLike[str]


class LiveOptions(Struct, frozen=True):
    """The options of a path as a live source."""

    follow: bool = False  # whether the source waits for more data, and never ends
    from_end: bool = False  # whether present data is skipped; only with `follow`
    selection: Selection = Selection()  # the files of a folder

    def check(self) -> None:
        """Raise UsageError for a contradiction."""
        if self.from_end and not self.follow:
            raise UsageError("--from-end needs --follow")


_DEFAULT_OPTIONS = LiveOptions()


def open_path(path: str, options: LiveOptions = _DEFAULT_OPTIONS) -> LiveSource:
    """Return a file, a folder, or standard input ('-') as a live source.

    Raises UsageError.
    """
    options.check()
    is_folder = path != STDIN and os.path.isdir(path)
    if is_folder:
        from asyncbatch.sources.live.folder import FolderSource

        return FolderSource(
            path, options.selection, follow=options.follow, from_end=options.from_end
        )
    if is_archive_name(path):
        raise UsageError(f"{path} {ARCHIVE_ADVICE}")
    if not options.follow or path == STDIN:
        return PipeSource(path)
    from asyncbatch.sources.live.follower import FollowedSource

    return FollowedSource(path, from_end=options.from_end)


SIMULATE = "simulate:"


def make_sources(origin: Origin | Sequence[Origin], options: LiveOptions) -> list[LiveSource]:
    """Return the live sources of one origin or several. Raises UsageError."""
    origins = list(_checked_origins(origin))
    if options.follow and not any(isinstance(one, str | os.PathLike) for one in origins):
        raise UsageError("follow works only for files and folders")
    names = unique_names(map(_name, origins))
    made: list[LiveSource] = []
    try:
        for name, one in zip(names, origins, strict=True):
            made.append(_make_source(name, one, options))
    except BaseException:
        for source in made:
            source.close()
        raise
    return made


def _checked_origins(origin: Any) -> Iterator[Origin]:
    several = (
        origin if isinstance(origin, list | tuple) and any(map(_is_single_origin, origin)) else None
    )
    for one in [origin] if several is None else several:
        if isinstance(one, Mapping | bytes) or not isinstance(one, _ORIGIN_TYPES):
            advice = ": call it" if callable(one) else ""
            raise UsageError(f"{one!r} is not a source of events{advice}")
        yield one


_ORIGIN_TYPES = (str, os.PathLike, AsyncIterable, Iterable)


def _is_single_origin(item: object) -> bool:
    """Whether an item of a list is a source, not an event."""
    return isinstance(item, AsyncIterable | Iterator | os.PathLike | str)


def _name(origin: Origin) -> str:
    return os.fspath(origin) if isinstance(origin, str | os.PathLike) else source_name(origin)


def _make_source(name: str, origin: Origin, options: LiveOptions) -> LiveSource:
    if not isinstance(origin, str | os.PathLike):
        return IterableSource(name, origin)
    path = os.fspath(origin)
    if path != name:
        raise UsageError(f"{path} is given twice: name each source once")
    if path == SIMULATE:
        return SimulatedSource(name, Simulator(time.time_ns() // 1000))
    if ":" in path and not os.path.exists(path):
        raise UsageError(f"{path!r} is not a source: use '-', a path, or 'simulate:'")
    return open_path(path, options)
