"""Conditional requests: a server sends a body only if it has changed (RFC 9110, section 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from yarl import URL

_NOT_MODIFIED = 304
_MAX_CHARACTERS = 1000  # of a validator; longer ones are not kept


class Validators(Struct, frozen=True):
    """The marks of one state of a body: the headers ETag and Last-Modified. Empty: none."""

    etag: str = ""
    modified: str = ""


class Conditions:
    """The bodies that earlier runs have read, and those that this run has read.

    A body is known by the URL that is asked for, before redirects.
    """

    def __init__(self) -> None:
        self._known: dict[URL, Validators] = {}
        self._found: dict[URL, Validators] = {}
        self._unchanged: set[URL] = set()

    def expect(self, url: URL, validators: Validators) -> None:
        """Ask for the body of `url` only if it differs from the one with these validators."""
        self._known[url] = validators

    def headers(self, url: URL) -> dict[str, str]:
        """Return the headers of a request for `url`."""
        known = self._known.get(url, Validators())
        found = {"If-None-Match": known.etag, "If-Modified-Since": known.modified}
        return {name: text for name, text in found.items() if text}

    def is_unchanged(self, url: URL, response: ClientResponse) -> bool:
        """Whether a response says that the body of `url` is the known one."""
        is_unchanged = response.status == _NOT_MODIFIED and bool(self.headers(url))
        if is_unchanged:
            self._unchanged.add(url)
        return is_unchanged

    def was_unchanged(self, url: URL) -> bool:
        """Whether a response to this run has said so."""
        return url in self._unchanged

    def note(self, url: URL, response: ClientResponse) -> None:
        """Note the validators of a body that is read now."""
        texts = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        self._found[url] = Validators(
            *(text if text.isprintable() and len(text) <= _MAX_CHARACTERS else "" for text in texts)
        )

    def validators(self, url: URL) -> Validators:
        """Return those of the body that this run has read, without any if it has read none."""
        return self._found.get(url, Validators())
