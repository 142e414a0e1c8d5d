"""How the sessions with a server are."""

from __future__ import annotations

from msgspec import Struct


class ServerSettings(Struct, frozen=True):
    """What is asked of a server beyond its address.

    `least` connections are kept open, and there are never more than `most`: one loads, another
    one asks meanwhile. A statement is given up after `statement_timeout` seconds, without it as
    the address says, or after ten minutes. `name` is what the server calls the sessions unless
    the address says otherwise; without both, asyncbatch.
    """

    least: int = 0
    most: int = 2
    statement_timeout: float | None = None
    name: str | None = None
