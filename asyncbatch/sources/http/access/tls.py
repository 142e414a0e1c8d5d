"""The TLS of a source: its own authorities, and the certificate of this client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from asyncbatch.core.options import Name, Options, SecretText
from asyncbatch.core.units import printable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from asyncbatch.core.options import Contradictions, Given


class TlsSettings(Options, frozen=True):
    """The certificates of connections."""

    ca: Annotated[
        Name | None,
        Meta(description="A file (PEM) with the only authorities to trust, not the system's."),
    ] = None
    cert: Annotated[
        Name | None, Meta(description="A file (PEM) with the certificate of this client.")
    ] = None
    key: Annotated[
        Name | None, Meta(description="A file (PEM) with its key, if cert has none.")
    ] = None
    key_password: Annotated[
        SecretText | None, Meta(description="The password of an encrypted key.")
    ] = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if None not in given.values():
            for key, advice in _tls_mistakes(cls(**given)):
                yield (key,), advice


def _tls_mistakes(tls: TlsSettings) -> Iterator[tuple[str, str]]:
    """Yield each mistake of the settings and of the files that they name: its key, and advice."""
    import ssl

    if tls.ca is None and tls.cert is None:
        yield ("key" if tls.key is not None else "ca"), "name a ca, a cert, or both"
        return
    for name in ("key", "key_password"):
        if getattr(tls, name) is not None and tls.cert is None:
            yield name, "needs cert: the certificate of this client"
    unreadable = False
    for name in ("ca", "cert", "key"):
        path = getattr(tls, name)
        reason = None if path is None else _why_unreadable(path)
        if reason is not None:
            unreadable = True
            yield name, reason
    if unreadable:
        return
    if tls.ca is not None:
        try:
            ssl.create_default_context(cafile=os.path.expanduser(tls.ca))
        except ssl.SSLError:
            yield "ca", f"{printable(tls.ca)} has no certificate in the form PEM"
    if tls.cert is not None:
        try:
            _load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)
        except _KeyMistakeError as error:
            yield error.name, str(error)


def make_context(tls: TlsSettings, *, has_certificate: bool) -> ssl.SSLContext:
    """Return a context that trusts only the authorities of `ca`, or those of the system.

    Raises OSError for files that have changed since they were checked.
    """
    import ssl

    context = ssl.create_default_context(
        cafile=None if tls.ca is None else os.path.expanduser(tls.ca)
    )
    if has_certificate and tls.cert is not None:
        try:
            _load_certificate(context, tls)
        except _KeyMistakeError as error:
            raise OSError(f"tls.{error.name}: {error}") from None
    return context


class _KeyMistakeError(Exception):
    """The certificate and its key do not fit. `name` is that of the setting."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _load_certificate(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Load the certificate of this client. Raises _KeyMistakeError."""
    import ssl

    assert tls.cert is not None
    asked = False

    def password() -> str:  # without it, OpenSSL would ask the terminal
        nonlocal asked
        asked = True
        return "" if tls.key_password is None else tls.key_password.reveal()

    cert = os.path.expanduser(tls.cert)
    key = None if tls.key is None else os.path.expanduser(tls.key)
    where = "cert" if key is None else "key"
    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        shown = printable(key or cert)
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _KeyMistakeError(where, f"{shown} has the key of another certificate") from None
        if asked and tls.key_password is None:
            raise _KeyMistakeError(where, f"{shown} is encrypted: give its key_password") from None
        if asked:
            raise _KeyMistakeError("key_password", f"does not decrypt {shown}") from None
        if not _has_certificate(cert):
            message = f"{printable(cert)} has no certificate in the form PEM"
            raise _KeyMistakeError("cert", message) from None
        advice = ": name the file of the key" if key is None else ""
        message = f"{shown} has no private key in the form PEM{advice}"
        raise _KeyMistakeError(where, message) from None


def _has_certificate(path: str) -> bool:
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return False
    return True


def _why_unreadable(path: str) -> str | None:
    """Return why a file cannot be read, None if it can."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            file.read(1)
    except OSError as error:
        return f"{printable(path)} cannot be read: {error.strerror}"
    return None
