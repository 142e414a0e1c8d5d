"""The errors of GraphQL answers, whose status is one of success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.formats.positions import text_at
from asyncbatch.sources.http.failures import GraphqlError
from asyncbatch.sources.http.waits import requested_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncbatch.sources.http.settings import HttpSettings

_MAX_MESSAGES = 3
# The types and codes of errors by which servers of GraphQL tell of a rate limit.
_RATE_LIMITS = {"RATE_LIMITED", "RATE_LIMIT", "THROTTLED", "TOO_MANY_REQUESTS"}
_LIMITED_STATUS = 429  # the status that such an error has elsewhere


def is_graphql(settings: HttpSettings) -> bool:
    """Whether the requests are GraphQL: their body has a text `query`."""
    return settings.body is not None and isinstance(settings.body.get("query"), str)


def check_errors(
    body: bytes, headers: Mapping[str, str], now: float, excerpt: Callable[[str], str]
) -> None:
    """Raise GraphqlError if an answer has errors, also beside data.

    `now` is since 1970. `excerpt` shortens a text of the server, without secrets.
    """
    text = text_at(body, ("errors",)) if body.lstrip()[:1] == b"{" else None
    errors = None if text is None else decode(text)
    if not errors:
        return
    found = errors if isinstance(errors, list) else [errors]
    messages = "; ".join(excerpt(_message_of(one)) for one in found[:_MAX_MESSAGES])
    if len(found) > _MAX_MESSAGES:
        messages += f"; and {len(found) - _MAX_MESSAGES:,} more"
    is_limited = any(_is_rate_limit(one) for one in found)
    wait = requested_wait(_LIMITED_STATUS, headers, now) if is_limited else None
    raise GraphqlError(f"the answer has errors of GraphQL: {messages}", body, wait)


def _message_of(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else encode(error).decode()
    if isinstance(error, dict) and isinstance(path := error.get("path"), list):
        text += f" (at {'.'.join(map(str, path))})"
    return text


def _is_rate_limit(error: Any) -> bool:
    if not isinstance(error, dict):
        return False
    extensions = error.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else None
    return any(isinstance(one, str) and one in _RATE_LIMITS for one in (error.get("type"), code))
