"""Redaction of credentials in all text that is shown or stored."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

REDACTED = "***"
_SECRET_NAME = re.compile(r"key|token|secret|passw|pwd|auth|sig|credential", re.IGNORECASE)


class Secret:
    """A text that only `reveal` returns. Its `str` and `repr` are `redacted`."""

    __slots__ = ("_text", "redacted")
    redacted: str

    def __init__(self, text: str, redacted: str = REDACTED) -> None:
        self._text, self.redacted = text, redacted

    def reveal(self) -> str:
        """Return the secret text."""
        return self._text

    def __repr__(self) -> str:
        return self.redacted

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


def secret_url(text: str) -> Secret:
    """Return a URL whose password and secret query values are redacted when shown.

    Raises ValueError if `text` is not a URL.
    """
    parts = _split_url(text)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon and f':{REDACTED}'}{at}{host}"
    query = "&".join(map(_redact_pair, parts.query.split("&"))) if parts.query else ""
    # urlunsplit would drop the slashes of an empty host: sqlite:///x.db.
    if not netloc and text.startswith(f"{parts.scheme}://"):
        return Secret(text, text)
    return Secret(text, urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment)))


def secret_path_url(text: str) -> Secret:
    """Return a URL that is shown as its scheme and host: the path is the secret.

    Raises ValueError if `text` is not a URL.
    """
    parts = _split_url(text)
    return Secret(text, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…")


def _split_url(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError:  # its message may quote the URL
        raise ValueError("is not a URL") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number up to 65,535") from None
    return parts


def _redact_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}={REDACTED}" if equals and value and is_secret_name(name) else pair


def is_secret_name(name: str) -> bool:
    """Whether a value of this name may be secret: a token, a key, a password."""
    return _SECRET_NAME.search(name) is not None


# schemes of database servers; other databases are files
SERVER_SCHEMES = ("postgresql", "postgres")

# A password ends at the last @: it may contain unescaped characters.
_USER_INFO = re.compile(r"(://[^:/?@]*):.*@", re.DOTALL)
_QUERY_SECRETS = re.compile(r"([?&])([^=&#]*)=([^&#]*)")


def is_server_url(name: str) -> bool:
    """Whether `name` is the address of a database server, not of a database file."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme in SERVER_SCHEMES


def redact_address(address: str) -> str:
    """Return an address without its password and secret query values."""
    shown = _USER_INFO.sub(r"\1@", address)
    return _QUERY_SECRETS.sub(
        lambda found: (
            f"{found[1]}{found[2]}={REDACTED if _is_password_name(found[2]) else found[3]}"
        ),
        shown,
    )


def is_ambiguous_address(address: str) -> bool:
    """Whether the password has unescaped characters that end a password in a URL."""
    match = _USER_INFO.search(address)
    return bool(match and set(match[0][len(match[1]) + 1 : -1]) & set("/?#@"))


def redact_text(text: str, address: str) -> str:
    """Return `text` with the passwords of `address` redacted."""
    for secret in _passwords_in(address):
        text = text.replace(secret, REDACTED)
    return text


def _passwords_in(address: str) -> list[str]:
    """Return the passwords in an address, escaped as written and unescaped."""
    passwords = [
        match[3] for match in _QUERY_SECRETS.finditer(address) if _is_password_name(match[2])
    ]
    if user_info := _USER_INFO.search(address):
        passwords.append(user_info[0][len(user_info[1]) + 1 : -1])
    decoded = map(unquoted, passwords)
    return sorted(filter(None, {*passwords, *decoded}), key=len, reverse=True)


def _is_password_name(name: str) -> bool:
    return "password" in unquoted(name).lower()


def unquoted(text: str) -> str:
    """Return a part of a URL without its escapes."""
    from urllib.parse import unquote

    return unquote(text) if "%" in text else text
