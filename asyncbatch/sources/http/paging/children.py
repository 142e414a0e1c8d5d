"""URLs that are made of the records of another URL: the requests for their children."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from msgspec import DecodeError, Struct

from asyncbatch.core.records import Failure, InvalidRecord
from asyncbatch.formats.csv_records import csv_records
from asyncbatch.formats.decoder import decode, decode_array, encode
from asyncbatch.formats.failures import FeedError
from asyncbatch.formats.positions import parse_pointer, text_at
from asyncbatch.sources.http.base import HttpError
from asyncbatch.sources.http.requests.templates import fill_places, places_of
from asyncbatch.transforms.fields import make_field_getter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asyncbatch.core.batches import Chunk
    from asyncbatch.core.records import Bookmark
    from asyncbatch.sources.http.base import Page
    from asyncbatch.sources.http.settings import HttpSettings, ParentRequests

    class ParentPages(Protocol):
        """The part of `HttpSource` that reads the pages of parents."""

        settings: HttpSettings

        def pages(self, url: str) -> AsyncGenerator[Page, None]:
            """Yield the pages of a URL. Raises HttpError."""
            ...

        def excerpt(self, text: str) -> str:
            """Return the first characters of a text of the server, without secrets."""
            ...


_PATH_STEPS = {"", ".", ".."}  # which would lead to another path


class Child(Struct, frozen=True):
    """The URL of the children of one record, and the fields that each child gets."""

    url: str
    fields: bytes  # a JSON object, empty without fields


class FailedFeed:
    """A feed in the place of URLs that cannot be made."""

    group = settings_digest = ""
    is_incremental = is_unchanged = False
    name: str
    former_name: str

    def __init__(self, name: str, message: str) -> None:
        self.name = self.former_name = name
        self._message = message

    async def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:  # noqa: ARG002 - it has no chunk
        no_chunks: tuple[Chunk, ...] = ()
        for chunk in no_chunks:
            yield chunk
        raise FeedError(Failure(self.name, "http", self._message))


class Children:
    """The URLs of children, for each record of the parent's URLs, in order.

    Pages of parents are requested when their children are. `parents` is entered. A URL that two
    records lead to is read once.
    """

    def __init__(
        self, settings: HttpSettings, parent: ParentRequests, parents: ParentPages
    ) -> None:
        self._urls, self._parents = settings.urls, parents
        self._fields = {name: make_field_getter(path) for name, path in parent.fields.items()}
        places = {place for url in settings.urls for place in places_of(url)}
        self._places = {place: make_field_getter(place) for place in places}
        self._seen: set[str] = set()

    async def each(self) -> AsyncGenerator[Child | FailedFeed, None]:
        """Yield the URLs, and a failed feed for each record or page that gives none."""
        for url in self._parents.settings.urls:
            try:
                async with aclosing(self._parents.pages(url)) as pages:
                    async for page in pages:
                        for number, record in enumerate(self._records(page), page.line):
                            for child in self._children(record, f"{page.url} (record {number})"):
                                yield child
            except HttpError as error:
                failure = error.failure
                yield FailedFeed(failure.url, f"parents: {failure.message}")

    def _records(self, page: Page) -> Iterator[Any]:
        """Yield the records of a page of parents."""
        match page.format:
            case "csv":
                for row in csv_records(page.body):
                    yield None if isinstance(row, InvalidRecord) else decode(row)
            case "jsonl":
                yield from (_value_of(line) for line in page.body.split(b"\n") if line.strip())
            case "json":
                pointer = parse_pointer(self._parents.settings.records)
                text = text_at(page.body, pointer) or b"[]"
                first = bytes(memoryview(text)[:1])
                yield from map(decode, decode_array(text) if first == b"[" else [text])

    def _children(self, record: Any, where: str) -> Iterator[Child | FailedFeed]:
        """Yield the URLs of the children of one record."""
        if not isinstance(record, dict):
            yield FailedFeed(where, "the parent is no object, so it has no fields for the URL")
            return
        fields = {name: get(record) for name, get in self._fields.items()}
        added = encode(fields) if fields else b""
        for template in self._urls:
            try:
                url = fill_places(template, partial(self._text_of, record))
            except ValueError as error:
                yield FailedFeed(where, str(error))
                continue
            if url not in self._seen:
                self._seen.add(url)
                yield Child(url, added)

    def _text_of(self, record: dict[str, Any], place: str) -> str:
        """Return the escaped value of a field of the parent. Raises ValueError."""
        value = self._places[place](record)
        is_usable = isinstance(value, str | int) and not isinstance(value, bool)
        text = str(value) if is_usable else ""
        if text in _PATH_STEPS:
            there = "nothing" if value is None else self._parents.excerpt(encode(value).decode())
            raise ValueError(f"the parent has {there} at {place!r}, which is no part of a URL")
        return quote(text, safe="")


def _value_of(line: bytes) -> Any:
    """Return the value of a line, None if it is not JSON."""
    try:
        return decode(line)
    except (DecodeError, UnicodeDecodeError):
        return None
