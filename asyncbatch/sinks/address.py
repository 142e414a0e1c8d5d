"""Addresses of servers: which there are, and what of them may be shown."""

from __future__ import annotations

import re

SERVERS = ("postgresql", "postgres")
"""The schemes of databases that are no files."""
HIDDEN = "***"
"""What stands in the place of a password."""

_IN_FRONT = re.compile(r"(://[^:/?@]*):.*@", re.DOTALL)
"""A password before the last @, whatever characters it has that ought to be escaped."""
_IN_QUERY = re.compile(r"([?&])([^=&#]*)=([^&#]*)")


def is_server(name: str) -> bool:
    """Whether this is the address of a database that is no file."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme in SERVERS


def without_password(address: str) -> str:
    """Return an address as it may be shown to anybody."""
    shown = _IN_FRONT.sub(r"\1@", address)
    return _IN_QUERY.sub(
        lambda found: f"{found[1]}{found[2]}={HIDDEN if _is_secret(found[2]) else found[3]}", shown
    )


def is_ambiguous(address: str) -> bool:
    """Whether a password has characters that end it, if they are not escaped."""
    found = _IN_FRONT.search(address)
    return bool(found and set(found[0][len(found[1]) + 1 : -1]) & set("/?#@"))


def without_secrets(text: str, address: str) -> str:
    """Return a text in which no password of an address stands."""
    for secret in _secrets(address):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(address: str) -> list[str]:
    """Return the passwords in an address, as they are written there and as they are meant."""
    found = [named[3] for named in _IN_QUERY.finditer(address) if _is_secret(named[2])]
    if in_front := _IN_FRONT.search(address):
        found.append(in_front[0][len(in_front[1]) + 1 : -1])
    meant = [_unquoted(secret) for secret in found]
    return sorted(filter(None, {*found, *meant}), key=len, reverse=True)


def _is_secret(name: str) -> bool:
    return "password" in _unquoted(name).lower()


def _unquoted(text: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415 - takes 3 ms, and few names have a %

    return unquote(text) if "%" in text else text
