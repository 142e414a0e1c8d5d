"""One pool of connections for a source."""

from __future__ import annotations

import aiohttp

import asyncbatch
from asyncbatch.codec.inflating import encodings

_LONGEST_HEADER = 64 * 1024
"""Bytes; Link headers may be long."""


def open_session() -> aiohttp.ClientSession:
    """Return a new session, to be closed.

    It verifies certificates, keeps no cookies, undoes no compression (`codec.inflating` also
    sees when something is cut), takes nothing from the environment, and has no limits of its
    own: those are `pace`'s and `asking`'s.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
        headers={
            "Accept": "application/json, application/x-ndjson;q=0.9, */*;q=0.1",
            "Accept-Encoding": ", ".join(encodings()),
            "User-Agent": f"asyncbatch/{asyncbatch.__version__}",
        },
    )
