"""The names that tell of secrets, and URLs without the secrets that may change. Imports no yarl."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urldefrag

from asyncbatch.core.secrets import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.sources.http.settings import HttpSettings

# Headers without secrets. They may go to origins other than that of the settings' URL.
HARMLESS_HEADERS = frozenset({"accept", "accept-language", "cache-control", "user-agent"})
# Not `author`, `authority`, `authored_by`: values of these select records.
_SECRET_NAME = re.compile(
    r"token|secret|passw|pwd|api[_-]?key|access[_-]?key|^key$|^sig$|signature|credential"
    r"|^auth(?!or(?!i[sz]))",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"[_-]key$", re.IGNORECASE)
# Variables like `AUTH_URL` say where a secret is used; their values are shown.
_PLAIN_VARIABLE = re.compile(
    r"[_-](?:url|uri|host|hostname|origin|endpoint|server|domain|port|path|file|user|username|name|id)$",
    re.IGNORECASE,
)
# The parameter of a query in whose value a text ends.
_LAST_PARAMETER = re.compile(r"[?&]([^=&#]+)=[^&#]*$")
# Names under which APIs also select records: `?key=A` may be a customer.
_AMBIGUOUS_NAMES = {"key", "token", "auth"}


def is_secret_name(name: str) -> bool:
    """Whether the value of a parameter or field of this name is hidden."""
    return _SECRET_NAME.search(name) is not None


def is_secret_variable(name: str, before: str) -> bool:
    """Whether a variable of the environment is a secret, by its name or its place in a text.

    `before` is the text before it: a URL may end in `?api_key=`.
    """
    is_named = is_secret_name(name) or _SECRET_VARIABLE.search(name) is not None
    if is_named and not _PLAIN_VARIABLE.search(name):
        return True
    parameter = _LAST_PARAMETER.search(before)
    return parameter is not None and _is_only_secret(unquote_plus(parameter[1]))


def _is_only_secret(name: str) -> bool:
    return is_secret_name(name) and name.lower() not in _AMBIGUOUS_NAMES


def masked_url(url: str, settings: HttpSettings) -> str:
    """Return a URL with `***` for the parameters that are secrets of `settings.hidden`.

    Another secret may take their place, and the URL still has the same records. Other values stay,
    also those with names of secrets.
    """
    hidden = sorted((one.reveal() for one in settings.hidden), key=len, reverse=True)
    public = getattr(settings.pagination, "param", None)
    base, mark, query = urldefrag(url).url.partition("?")
    pairs = []
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if equals and unquote_plus(name) != public and is_secret_name(unquote_plus(name)):
            if unquote_plus(value) in hidden:
                value = REDACTED
            for secret in hidden:
                value = value.replace(secret, REDACTED)
        pairs.append(f"{name}{equals}{value}")
    return f"{base}{mark}{'&'.join(pairs)}"


def ambiguous_urls(all_settings: Iterable[HttpSettings]) -> frozenset[str]:
    """Return the URLs of all sources that differ from another one in secrets only."""
    found: dict[str, set[str]] = {}
    for settings in all_settings:
        for url in settings.urls:
            found.setdefault(masked_url(url, settings), set()).add(urldefrag(url).url)
    return frozenset(
        url
        for settings in all_settings
        for url in settings.urls
        if len(found[masked_url(url, settings)]) > 1
    )
