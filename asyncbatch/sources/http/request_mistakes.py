"""The settings of requests that do not go together: bodies, cursors, templates, forms of pages.

The settings come by their names, from a program or from a table of a pipeline file. Does not import
aiohttp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncbatch.formats.positions import parse_pointer
from asyncbatch.sources.http.access.credentials import HEADER_NAME, header_mistake
from asyncbatch.sources.http.requests.places import put_value
from asyncbatch.sources.http.requests.templates import (
    places_of,
    template_mistakes,
    texts_of,
    uses,
    without_templates,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    KeyPath = tuple[str | int, ...]
    PlacedMistake = tuple[KeyPath, str]

_CURSORS = ("next", "next_header", "last_record")
_POINTERS = ("next", "last_record", "more", "end", "total", "pages")


def request_mistakes(urls: Sequence[str], settings: Mapping[str, Any]) -> Iterator[PlacedMistake]:
    """Yield the path of each setting that does not fit to the others, and advice."""
    pagination, incremental = settings.get("pagination"), settings.get("incremental")
    yield from _template_mistakes(urls, settings)
    yield from _form_mistakes(settings)
    if pagination is not None:
        yield from _pagination_mistakes(pagination, settings)
    if incremental is not None:
        yield from _incremental_mistakes(urls, settings)
    yield from _parent_mistakes(urls, settings.get("parent"))


def _parent_mistakes(urls: Sequence[str], parent: Any) -> Iterator[PlacedMistake]:
    places = [place for url in urls for place in places_of(url)]
    if parent is None:
        return
    from asyncbatch.transforms.fields import parse_path

    for index, url in enumerate(urls):
        if not places_of(url):
            yield ("urls", index), "has no field of its parent in braces, such as {id}"
    for name, path in [*((place, place) for place in places), *parent.fields.items()]:
        try:
            parse_path(path)
        except ValueError as error:
            yield ("parent",), f"{name}: {error}"


def _template_mistakes(urls: Sequence[str], settings: Mapping[str, Any]) -> Iterator[PlacedMistake]:
    incremental = settings.get("incremental")
    has_since = getattr(incremental, "initial", None) is not None
    for index, url in enumerate(urls):
        for mistake in template_mistakes(url, has_since=has_since):
            yield ("urls", index), mistake
        if without_templates(urlsplit(url).netloc) != urlsplit(url).netloc:
            yield ("urls", index), "has a template in its host: only its path and query may"
    for path, body in _bodies(settings):
        for text in texts_of(body):
            for mistake in template_mistakes(text, has_since=has_since):
                yield path, mistake


def _form_mistakes(settings: Mapping[str, Any]) -> Iterator[PlacedMistake]:
    form, key_field = settings.get("format", "auto"), settings.get("key_field")
    if form == "csv" and settings.get("records"):
        yield ("records",), 'is a pointer into JSON, but format = "csv": remove one'
    if key_field is not None and form in ("csv", "jsonl"):
        yield ("key_field",), f'is only for JSON, but format = "{form}": remove one'


def _pagination_mistakes(pagination: Any, settings: Mapping[str, Any]) -> Iterator[PlacedMistake]:
    names = [name for name in _CURSORS if hasattr(pagination, name)]
    given = [name for name in names if getattr(pagination, name) is not None]
    if names and len(given) != 1:
        found = f"{' and '.join(given)} exclude each other" if given else f"{names[0]} is missing"
        yield ("pagination",), f"{found}: name one of {', '.join(names)}"
    form = settings.get("format", "auto")
    if form in ("csv", "jsonl"):
        for name in _POINTERS:
            if getattr(pagination, name, None) is not None:
                text = f'is a pointer into JSON, but format = "{form}": use next_header, '
                yield ("pagination", name), text + "link_header or page"
    header = getattr(pagination, "next_header", None)
    if header is not None and not HEADER_NAME.fullmatch(header):
        yield ("pagination", "next_header"), "is not the name of a header"
    yield from _base_mistakes(getattr(pagination, "base", None))
    following = getattr(pagination, "following", None)
    body = settings.get("body") if following is None else following.body or settings.get("body")
    names = [name for name in ("param", "limit_param", "size_param") if hasattr(pagination, name)]
    for name in names:
        if getattr(pagination, name) is not None:
            yield from _place_mistakes(("pagination", name), pagination, body, settings)


def _base_mistakes(base: str | None) -> Iterator[PlacedMistake]:
    if base is None:
        return
    try:
        if base.startswith("/"):
            parse_pointer(base)
        elif urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
            yield (
                ("pagination", "base"),
                "must be a URL with http:// or https://, or the JSON Pointer of one in a page",
            )
    except ValueError as error:
        yield ("pagination", "base"), str(error)


def _incremental_mistakes(
    urls: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[PlacedMistake]:
    incremental, pagination = settings["incremental"], settings.get("pagination")
    param = incremental.param
    if param is None:
        texts = [*urls, *(text for _, body in _bodies(settings) for text in texts_of(body))]
        if not any(uses(text, "since") for text in texts):
            yield (
                ("incremental", "param"),
                "is missing: name the parameter, or write {{ since }} in a URL or the body",
            )
        return
    body = settings.get("body")
    yield from _place_mistakes(("incremental", "param"), incremental, body, settings)
    other = getattr(pagination, "param", None)
    if param == other and incremental.param_in == getattr(pagination, "param_in", "query"):
        yield ("incremental", "param"), f"pagination also has the parameter {other!r}"


def _place_mistakes(
    where: tuple[str, str], table: Any, body: Any, settings: Mapping[str, Any]
) -> Iterator[PlacedMistake]:
    """Yield the mistake of a parameter of `table`, by the place where it is sent."""
    param, place = getattr(table, where[1]), table.param_in
    if place == "body" and body is None:
        if where[1] == "param":
            yield (where[0], "param_in"), "is body, and there is none: write body = {}"
    elif place == "body":
        try:
            put_value(body, param, 0)
        except ValueError as error:  # also a PlaceError
            yield where, str(error)
    elif place == "header":
        headers = {header.lower() for header in settings.get("headers") or ()}
        if mistake := header_mistake(param):
            yield where, mistake
        elif param.lower() in headers:
            yield where, "is also in headers: choose one"


def _bodies(settings: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    yield ("body",), settings.get("body")
    following = getattr(settings.get("pagination"), "following", None)
    if following is not None:
        yield ("pagination", "following", "body"), following.body
