"""Texts as people may see them: without secrets."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from asyncbatch.http.settings import BasicAuth, BearerAuth, HeaderAuth, QueryAuth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yarl import URL

    from asyncbatch.http.settings import HttpSettings

SHOWN = "***"
HARMLESS_HEADERS = frozenset({"accept", "accept-language", "cache-control", "user-agent"})
"""Headers that carry no secret and tell no origin anything about another."""
_TELLING = 6
"""Values of headers shorter than this are no secrets, and would spoil messages."""
_SECRET_NAME = re.compile(
    r"token|secret|passw|pwd|api[_-]?key|access[_-]?key|^key$|^sig$|signature|^auth|credential",
    re.IGNORECASE,
)


class Redactor:
    """Hides the secrets of `settings` wherever they turn up, as in what a server echoes."""

    def __init__(self, settings: HttpSettings) -> None:
        found = {form for secret in _secrets(settings) for form in _forms(secret) if form}
        longest_first = sorted(found, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if found else None
        self._known = {getattr(settings.pagination, "param", None)}
        """Parameters that are shown whatever their name."""

    def hide(self, text: str) -> str:
        """Return `text` with each secret as `***`."""
        return self._secrets.sub(SHOWN, text) if self._secrets else text

    def url(self, url: URL) -> str:
        """Return a URL without a user's name, a password, and what looks like a key."""
        bare = url.with_user(None).with_fragment(None)
        for name in {*bare.query} - self._known:
            if _SECRET_NAME.search(name):
                bare = bare.update_query({name: SHOWN})
        return self.hide(str(bare))


def basic_value(auth: BasicAuth) -> str:
    """Return a name and a password as HTTP's Basic scheme writes them."""
    return b64encode(f"{auth.username}:{auth.password.reveal()}".encode()).decode()


def _secrets(settings: HttpSettings) -> Iterator[str]:
    match settings.auth:
        case BearerAuth(token=secret) | BasicAuth(password=secret):
            yield secret.reveal()
        case HeaderAuth(value=secret) | QueryAuth(value=secret):
            yield secret.reveal()
        case None:
            pass
    if isinstance(settings.auth, BasicAuth):
        yield basic_value(settings.auth)
    for name, value in settings.headers.items():
        if name.lower() not in HARMLESS_HEADERS and len(value.reveal()) >= _TELLING:
            yield value.reveal()


def _forms(secret: str) -> tuple[str, ...]:
    return (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
