"""Sources put together: each read in its own way, and the same done to the records of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from asyncbatch.fingerprint import fingerprint
from asyncbatch.given_feeds import GivenFeeds
from asyncbatch.http import Connections, HttpSettings
from asyncbatch.http_feeds import HttpFeeds
from asyncbatch.job import FileSource
from asyncbatch.record_settings import RecordWorkSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Iterator

    from asyncbatch.feeds import FeedSource

    Origin: TypeAlias = FileSource | HttpSettings | AsyncIterable[Any] | Iterable[Any]
    """Where records come from: files, URLs, an iterable of a program."""


def assembled(
    origins: Iterable[tuple[str, Origin]], work: RecordWorkSettings, *, asks_ahead: bool = True
) -> Iterator[FileSource | FeedSource]:
    """Yield a source of each origin, beside which is its name, with `work` done to its records.

    What the inputs of one are called for good depends on those before it. Pages are only asked
    for ahead of what is taken if `asks_ahead`.
    """
    files, urls, connections = 0, set[str](), Connections()
    for name, origin in origins:
        if isinstance(origin, HttpSettings):
            field = origin.incremental.field if origin.incremental else None
            settings = replace(work, records=origin.records or None, newest=field)
            is_alone = urls.isdisjoint(origin.urls)
            yield HttpFeeds(
                name,
                origin,
                settings,
                is_alone=is_alone,
                connections=connections,
                asks_ahead=asks_ahead,
            )
            urls.update(origin.urls)
        elif isinstance(origin, FileSource):
            reading = origin.record_work or RecordWorkSettings(origin.files)
            settings = replace(
                work, files=reading.files, records=reading.records, whole=reading.whole
            )
            prefix = f"{name}:{fingerprint(reading)[:8]}//" if files else ""
            yield FileSource(origin.inputs, settings, origin.may_be_empty, name, prefix)
            files += 1
        else:
            yield GivenFeeds(name, origin, work)
