"""Text that must not be seen: tokens, passwords, and URLs with such in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
_SECRET_NAME = re.compile(r"key|token|secret|passw|pwd|auth|sig|credential", re.IGNORECASE)


class Secret:
    """Text that only `reveal` tells; wherever else it is written, `shown` stands in its place."""

    __slots__ = ("_text", "shown")

    def __init__(self, text: str, shown: str = HIDDEN) -> None:
        self._text, self.shown = text, shown

    def reveal(self) -> str:
        """Return the text itself, for those who must send it."""
        return self._text

    def __repr__(self) -> str:
        return self.shown

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


def encode_secret(value: object) -> str:
    """Return what stands for a Secret in JSON: msgspec's `enc_hook`. Raises NotImplementedError."""
    if isinstance(value, Secret):
        return value.shown
    raise NotImplementedError(type(value).__name__)


def secret_url(text: str) -> Secret:
    """Return a URL that is shown without its password and its telling query values.

    Raises ValueError if it is no URL at all.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is no URL") from None
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon and f':{HIDDEN}'}{at}{host}"
    query = "&".join(map(_shown_pair, parts.query.split("&"))) if parts.query else ""
    # By hand where urlunsplit would drop the slashes of an empty host: sqlite:///x.db.
    if not netloc and text.startswith(f"{parts.scheme}://"):
        return Secret(text, text)
    return Secret(text, urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment)))


def _shown_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}={HIDDEN}" if equals and value and _SECRET_NAME.search(name) else pair
