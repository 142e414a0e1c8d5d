"""The encoding of settings with secrets, as a log or a report would do it."""

from __future__ import annotations

from asyncbatch.core.secrets import Secret


def encode_secret(value: object) -> str:
    """Return the shown text of a Secret, as msgspec's `enc_hook`."""
    if isinstance(value, Secret):
        return value.redacted
    raise NotImplementedError(type(value).__name__)
