"""How object stores are reached: plain data, without credentials, that may travel to workers."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.retrying import Retries


class StoreSettings(Struct, frozen=True):
    """How stores are reached.

    `endpoint` is the URL of a server in place of the provider's own; `anonymous` asks without
    credentials, which otherwise each process finds by itself (see `cloud.credentials`). `retries`
    are of what a store answers for the moment, such as 500 and SlowDown. `timeout` is in seconds,
    without a byte coming.
    """

    endpoint: str | None = None
    anonymous: bool = False
    retries: Retries = Retries(5, 0.2)
    timeout: float = 60.0

    @classmethod
    def of(
        cls, endpoint: str | None, retries: Retries | None = None, *, anonymous: bool = False
    ) -> StoreSettings:
        """Return what the user asks for; never fewer retries than by default. Raises UsageError."""
        least = cls().retries
        asked = least if retries is None else retries
        settings = cls(endpoint, anonymous, max(asked, least, key=lambda one: one.count))
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UsageError if this cannot be meant."""
        if self.endpoint is not None:
            scheme, colon, host = self.endpoint.partition("://")
            if not colon or scheme not in ("http", "https") or not host:
                raise UsageError("--endpoint: write http://HOST:PORT or https://HOST")
            if "@" in host:
                raise UsageError("--endpoint: credentials have no place in it")
