"""What an API tells about its pages: their number, the records in all, whether there are more."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import decode
from asyncbatch.formats.positions import format_pointer, parse_pointer, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.sources.http.response import HttpResponse
    from asyncbatch.sources.http.settings import HttpSettings

_NAMES = ("next", "more", "end", "total", "pages")
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NUMBER = re.compile(r"[0-9]{1,18}")
_MAX_SUGGESTED_LEVELS = 4
_LIKENESS = 0.6


class Told:
    """A reader of the values of pages at the JSON Pointers of `pagination`. One for each URL.

    It also notes which of the pointers no page had: they may be misspelt.
    """

    def __init__(self, settings: HttpSettings) -> None:
        pagination = settings.pagination
        self._records = parse_pointer(settings.records)
        self._pointers = {
            name: parse_pointer(pointer)
            for name in _NAMES
            if isinstance(pointer := getattr(pagination, name, None), str)
        }
        self._is_child = settings.parent is not None
        self._missing = set(self._pointers)
        self._last_body = b""

    def note(self, answer: HttpResponse) -> None:
        """Note which pointers a page with records has."""
        if not answer.is_json:
            return
        found = [
            name for name in self._missing if text_at(answer.body, self._pointers[name]) is not None
        ]
        self._missing.difference_update(found)
        self._last_body = answer.body

    def number(self, answer: HttpResponse, name: str) -> int | None:
        """Return the number at the pointer `name`, None without a number above 0."""
        value = self._value(answer, name)
        is_text = isinstance(value, str) and _NUMBER.fullmatch(value.strip()) is not None
        if is_text or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        return value if type(value) is int and value > 0 else None

    def has_more(self, answer: HttpResponse) -> bool | None:
        """Return whether a page tells that there are more, None if it does not tell."""
        more, end = self._flag(answer, "more"), self._flag(answer, "end")
        return more if end is None else not end

    def _flag(self, answer: HttpResponse, name: str) -> bool | None:
        """Return the truth value at the pointer `name`, None without one."""
        value = self._value(answer, name)
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None

    def warnings(self, url: str) -> Iterator[str]:
        """Yield a warning for each pointer that no page of `url` had."""
        if not self._last_body or self._is_child:  # many children have only one page
            return
        for name in sorted(self._missing):
            pointer = self._pointers[name]
            near = self._nearest(pointer)
            meant = f" (did you mean {near}?)" if near else ""
            yield (
                f"warning: {url}: no page has anything at {format_pointer(pointer)}, the pointer "
                f"pagination.{name}{meant}, so pages may be missing"
            )

    def _value(self, answer: HttpResponse, name: str) -> Any:
        pointer = self._pointers.get(name)
        if pointer is None or not answer.is_json:
            return None
        text = text_at(answer.body, pointer)
        return None if text is None else decode(text)

    def _nearest(self, pointer: Sequence[str]) -> str | None:
        root = text_at(self._last_body, ())
        known = [] if root is None else list(_pointers_in(decode(root), self._records))
        near = difflib.get_close_matches(format_pointer(pointer), known, 1, _LIKENESS)
        return near[0] if near else None


def _pointers_in(value: Any, records: Sequence[str], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the pointers of the single values of a page, except those in its records."""
    if not isinstance(value, dict):
        if not isinstance(value, list):
            yield format_pointer(path)
        return
    if len(path) < _MAX_SUGGESTED_LEVELS:
        for name, child in value.items():
            if (*path, name) != tuple(records):
                yield from _pointers_in(child, records, (*path, name))
