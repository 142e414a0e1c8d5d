"""A response, made into an answer: its status, its body, its links."""

from __future__ import annotations

import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import ClientError

from asyncbatch.codec.compression import CorruptArchiveError
from asyncbatch.codec.fault import Fault
from asyncbatch.http.body import UnknownEncodingError, is_lines, pieces, whole
from asyncbatch.http.troubles import NotJsonError, StatusError
from asyncbatch.http.waiting import retry_after

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from yarl import URL

    from asyncbatch.codec.judge import Judge
    from asyncbatch.http.body import LineStream
    from asyncbatch.http.settings import HttpSettings

_SUCCESSFUL = range(200, 300)
_LINK = re.compile(r"""<([^>]*)>((?:[^,"<]|"(?:[^"\\]|\\.)*")*)""")
_RELATION = re.compile(r""";\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))""", re.IGNORECASE)
_QUOTED_BYTES = 4096
"""As much of the body of an error is read."""


class Answer(NamedTuple):
    """What a request gave: of `url`, after redirects, without what only requests hold.

    `body` is one valid JSON text, or empty if the server has no content to send. JSON Lines are
    not judged; they may still be to be read, from `stream`, which then is to be closed.
    """

    url: URL
    content_type: str
    body: bytes
    is_lines: bool
    next_link: str | None
    attempts: int
    stream: LineStream | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, not even an empty list."""
        return self.stream is None and not self.is_lines and not self.body


async def check_status(response: ClientResponse, now: float) -> None:
    """Raise StatusError for an answer that is none. `now` is in seconds since 1970."""
    if response.status in _SUCCESSFUL:
        return
    quoted = bytearray()
    # What an error says for itself is worth a look; that it says it badly changes nothing.
    with suppress(ClientError, UnknownEncodingError, CorruptArchiveError):
        async with aclosing(pieces(response)) as arriving:
            async for piece in arriving:
                quoted += piece
                if len(quoted) >= _QUOTED_BYTES:
                    break
    wait = retry_after(response.headers, now)
    raise StatusError(response.status, response.reason or "", bytes(quoted), wait)


async def read_answer(
    response: ClientResponse, url: URL, attempts: int, settings: HttpSettings, judge: Judge
) -> Answer:
    """Return the answer with its whole body. Raises what `body.whole` does, and NotJsonError."""
    body = await whole(response, settings.max_body)
    lines = is_lines(response, settings.format)
    if not lines and (body or response.status != 204):
        verdict = judge(body)
        if isinstance(verdict, Fault):
            raise NotJsonError(verdict.message, verdict.byte, body, response.content_type)
    return Answer(url, response.content_type, body, lines, next_link(response), attempts)


def next_link(response: ClientResponse) -> str | None:
    """Return where the Link header says that the next page is."""
    for target, parameters in _LINK.findall(", ".join(response.headers.getall("Link", ()))):
        relation = _RELATION.search(parameters)
        if relation and "next" in (relation[1] or relation[2]).lower().split():
            return str(target)
    return None
