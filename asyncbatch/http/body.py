"""The body of an answer: whole and under a cap, or as JSON Lines, stretch by stretch."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.codec.inflating import Inflater

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import ClientResponse

STRETCH = 1024 * 1024
"""Bytes of JSON Lines after which a stretch ends with the line."""
_LINES_TYPES = {
    "application/jsonl", "application/jsonlines", "application/json-lines", "application/ndjson",
    "application/x-jsonlines", "application/x-ndjson", "application/x-json-stream",
    "text/jsonl", "text/x-ndjson",
}  # fmt: skip


class BodyTooLargeError(Exception):
    """A body, or a line of one, goes on beyond the limit."""


class UnknownEncodingError(Exception):
    """A body is compressed in a way that was not asked for; the message says which."""


class Stretch(NamedTuple):
    """Whole lines that follow on each other, and where they begin: line from 1, byte from 0."""

    text: bytes
    line: int
    byte: int


def is_lines(response: ClientResponse, form: str) -> bool:
    """Whether a body is JSON Lines: as `form` says, or for auto its content type."""
    return form == "jsonl" or (form == "auto" and response.content_type in _LINES_TYPES)


async def whole(response: ClientResponse, limit: int) -> bytes:
    """Return all of a body. Raises as `pieces`; BodyTooLargeError beyond `limit` bytes."""
    taken, size = [], 0
    async for piece in pieces(response):
        taken.append(piece)
        size += len(piece)
        if size > limit:
            raise BodyTooLargeError
    return b"".join(taken)


class LineStream:
    """The lines of an open answer. Limits, and what is raised, are those of `stretches`."""

    def __init__(self, response: ClientResponse, limit: int, patience: float) -> None:
        self._response = response
        self._arriving = stretches(response, limit, patience)
        self._first: Stretch | None = None

    async def begin(self) -> None:
        """Read the first stretch, which is all if there is no more: so long one may begin anew."""
        self._first = await anext(self._arriving, None)

    async def stretches(self) -> AsyncGenerator[Stretch, None]:
        """Yield them all."""
        if self._first is None:
            return
        yield self._first
        async for stretch in self._arriving:
            yield stretch

    async def close(self) -> None:
        """Read no more."""
        await self._arriving.aclose()
        self._response.close()


async def stretches(
    response: ClientResponse, limit: int, patience: float
) -> AsyncGenerator[Stretch, None]:
    """Yield the lines of a body as they come, and at its end what they still lack.

    Raises as `pieces`; BodyTooLargeError for a line of more than `limit` bytes; TimeoutError if
    nothing comes for `patience` seconds.
    """
    waiting: list[bytes] = []
    size, open_line, line, byte = 0, 0, 1, 0
    async with aclosing(pieces(response)) as arriving:
        while True:
            async with asyncio.timeout(patience):
                piece = await anext(arriving, None)
            if piece is None:
                break
            end = piece.rfind(b"\n") + 1
            if open_line + (piece.find(b"\n") if end else len(piece)) > limit:
                raise BodyTooLargeError
            open_line = len(piece) - end if end else open_line + len(piece)
            waiting.append(piece[:end])
            size += end
            if size >= STRETCH:
                text = b"".join(waiting)
                yield Stretch(text, line, byte)
                line, byte = line + text.count(b"\n"), byte + len(text)
                waiting, size = [], 0
            waiting.append(piece[end:])
            size += len(piece) - end
    if text := b"".join(waiting):
        yield Stretch(text, line, byte)


async def pieces(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield a body as it comes, decompressed.

    Raises UnknownEncodingError, CorruptArchiveError, and what aiohttp does.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for data in response.content.iter_any():
            yield data
        return
    try:
        inflater = Inflater(encoding)
    except ValueError as error:
        raise UnknownEncodingError(str(error)) from None
    async for data in response.content.iter_any():
        for piece in inflater.feed(data):
            yield piece
    inflater.finish()
