"""Responses: status, headers, decompressed bodies, and size limits."""

from __future__ import annotations

import asyncio
import codecs
import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from aiohttp import ClientError

from asyncbatch.formats.compression import Decompressor
from asyncbatch.formats.detect import with_format_key
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.http.failures import (
    BodyTooLargeError,
    NoRecordsError,
    NotJsonError,
    StatusError,
    UnknownEncodingError,
)
from asyncbatch.sources.http.waits import requested_wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import ClientResponse
    from yarl import URL

    from asyncbatch.formats.validator import Validator
    from asyncbatch.sources.http.settings import HttpSettings

PART_BYTES = 1024 * 1024  # a part of JSON Lines ends at the first line end after this size
_LINES_TYPES = {
    "application/jsonl", "application/jsonlines", "application/json-lines", "application/ndjson",
    "application/x-jsonlines", "application/x-ndjson", "application/x-json-stream",
    "text/jsonl", "text/x-ndjson",
}  # fmt: skip
# Values of Content-Encoding that are no compression. Some servers put the character set there.
_NO_ENCODINGS = {
    "", "identity", "none", "binary", "7bit", "8bit", "utf-8", "utf8", "charset=utf-8", "us-ascii",
    "ascii", "iso-8859-1", "latin1", "windows-1252",
}  # fmt: skip


class BodyPart(NamedTuple):
    """Whole lines of a body."""

    text: bytes
    line: int  # the number of the first line, from 1
    byte: int  # the offset of the first byte, from 0


def is_lines(response: ClientResponse, form: str) -> bool:
    """Whether a body is JSON Lines, by `form`, or for "auto" by its content type."""
    return form == "jsonl" or (form == "auto" and response.content_type in _LINES_TYPES)


def is_csv(response: ClientResponse, form: str) -> bool:
    """Whether a body is CSV. Raises NoRecordsError for a body of JSON or HTML in its place."""
    kind = response.content_type
    if form == "csv" and ("json" in kind or "html" in kind):
        raise NoRecordsError(f"expected CSV, found {kind}: `format` is csv")
    return form == "csv" or (form == "auto" and kind == "text/csv")


def utf8_body(response: ClientResponse, body: bytes) -> bytes:
    """Return a body of text in UTF-8, by its character set. Raises NoRecordsError."""
    name = response.charset or "utf-8"
    try:
        codec = codecs.lookup(name).name
        return body if codec == "utf-8" else body.decode(codec).encode()
    except (LookupError, UnicodeError, AttributeError):
        raise NoRecordsError(f"the response is not text in the character set {name!r}") from None


async def whole_body(response: ClientResponse, limit: int) -> bytes:
    """Return a whole body, decompressed.

    Raises BodyTooLargeError beyond `limit` bytes, and the errors of `body_chunks`.
    """
    chunks, size = [], 0
    async for piece in body_chunks(response):
        chunks.append(piece)
        size += len(piece)
        if size > limit:
            raise BodyTooLargeError
    return b"".join(chunks)


class LineStream:
    """The lines of an open response. Call `read_first_part`, iterate `parts`, then `close`.

    Limits and errors are those of `body_parts`.
    """

    def __init__(self, response: ClientResponse, limit: int, read_timeout: float) -> None:
        self._response = response
        self._parts = body_parts(response, limit, read_timeout)
        self._first: BodyPart | None = None

    async def read_first_part(self) -> None:
        """Read the first part. The request can be retried until this returns."""
        self._first = await anext(self._parts, None)

    async def parts(self) -> AsyncGenerator[BodyPart, None]:
        """Yield all parts."""
        if self._first is None:
            return
        yield self._first
        async for part in self._parts:
            yield part

    async def close(self) -> None:
        """Close the response, also if it is not read to its end."""
        await self._parts.aclose()
        self._response.close()


async def body_parts(
    response: ClientResponse, limit: int, read_timeout: float
) -> AsyncGenerator[BodyPart, None]:
    """Yield the lines of a body as they arrive. The last line may have no line end.

    Raises BodyTooLargeError for a line of more than `limit` bytes, TimeoutError after
    `read_timeout` seconds without data, and the errors of `body_chunks`.
    """
    unfinished: list[bytes] = []
    size, open_line, line, byte = 0, 0, 1, 0
    async with aclosing(body_chunks(response)) as arriving:
        while True:
            async with asyncio.timeout(read_timeout):
                piece = await anext(arriving, None)
            if piece is None:
                break
            end = piece.rfind(b"\n") + 1
            is_open_too_long = open_line + (piece.find(b"\n") if end else len(piece)) > limit
            if is_open_too_long or (
                len(piece) > limit and max(map(len, piece.split(b"\n"))) > limit
            ):
                raise BodyTooLargeError
            open_line = len(piece) - end if end else open_line + len(piece)
            unfinished.append(piece[:end])
            size += end
            if size >= PART_BYTES:
                text = b"".join(unfinished)
                yield BodyPart(text, line, byte)
                line, byte = line + text.count(b"\n"), byte + len(text)
                unfinished, size = [], 0
            unfinished.append(piece[end:])
            size += len(piece) - end
    if text := b"".join(unfinished):
        yield BodyPart(text, line, byte)


async def body_chunks(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield the decompressed bytes of a body as they arrive.

    Raises UnknownEncodingError, CorruptArchiveError and aiohttp's errors.
    """
    encodings = [
        name
        for text in response.headers.getall("Content-Encoding", ())
        for name in text.lower().replace(" ", "").split(",")
        if name not in _NO_ENCODINGS
    ]
    if not encodings:
        async for data in response.content.iter_any():
            yield data
        return
    try:
        inflater = Decompressor(", ".join(encodings))
    except ValueError as error:
        raise UnknownEncodingError(str(error)) from None
    async for data in response.content.iter_any():
        for piece in inflater.feed(data):
            yield piece
    inflater.finish()


_SUCCESSFUL = range(200, 300)
_PARTIAL = 206
_LINK = re.compile(r"""<([^>]*)>((?:[^,"<]|"(?:[^"\\]|\\.)*")*)""")
_PARAMETER = re.compile(
    r""";\s*(rel|results)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;,"']+))""", re.IGNORECASE
)
# Bytes of the body of an error that are read, and redacted before a few characters are quoted: more
# than the longest token, which would not be found in a part of it.
QUOTED_BYTES = 64 * 1024


class HttpResponse(NamedTuple):
    """A response after redirects. The caller closes its stream, if it has one."""

    url: URL
    content_type: str
    body: bytes  # one valid JSON text, JSON Lines that are not validated, or empty
    is_lines: bool
    next_link: str | None  # from the Link header, or the header `pagination.next_header`
    attempts: int  # the number of requests made
    stream: LineStream | None = None  # JSON Lines that are not read yet; `body` is then empty
    is_csv: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the response has no content at all, not even an empty list."""
        return self.stream is None and not self.is_lines and not self.is_csv and not self.body

    @property
    def form(self) -> Literal["json", "jsonl", "csv"]:
        """The format of the body."""
        return "jsonl" if self.is_lines else "csv" if self.is_csv else "json"

    @property
    def is_json(self) -> bool:
        """Whether the body is one JSON text."""
        return bool(self.body) and not self.is_lines and not self.is_csv


async def check_status(response: ClientResponse, now: float) -> None:
    """Raise StatusError for an error status. `now` is in seconds since 1970.

    A part of a body, for which the request had not asked, is an error: the rest would be lost.
    """
    is_part = response.status == _PARTIAL and "Range" not in response.request_info.headers
    if response.status in _SUCCESSFUL and not is_part:
        return
    quoted = bytearray()
    # The body of an error may explain the error. A body that cannot be read is ignored.
    with suppress(ClientError, UnknownEncodingError, CorruptArchiveError):
        async with aclosing(body_chunks(response)) as arriving:
            async for piece in arriving:
                quoted += piece
                if len(quoted) >= QUOTED_BYTES:
                    break
    wait = requested_wait(response.status, response.headers, now)
    raise StatusError(response.status, response.reason or "", bytes(quoted), wait)


async def read_response(
    response: ClientResponse, url: URL, attempts: int, settings: HttpSettings, validator: Validator
) -> HttpResponse:
    """Return the response with its whole body.

    Raises NotJsonError, NoRecordsError and the errors of `whole_body`.
    """
    body = await whole_body(response, settings.max_body)
    lines = is_lines(response, settings.format)
    comma_separated = not lines and is_csv(response, settings.format)
    if comma_separated:
        body = utf8_body(response, body)
    elif not lines and (body or response.status != 204):
        verdict = validator(body)
        if isinstance(verdict, Fault):
            message = with_format_key(verdict.message, ("jsonl",))
            raise NotJsonError(message, verdict.byte, body, response.content_type)
    link = next_link(response, settings)
    kind = response.content_type
    return HttpResponse(url, kind, body, lines, link, attempts, is_csv=comma_separated)


def next_link(response: ClientResponse, settings: HttpSettings) -> str | None:
    """Return the URL with rel=next of the Link header, None without one.

    If the settings have a `next_header`, return the value of that header instead.

    A link with results=false leads to a page without records: some APIs mark the end so.
    """
    header = getattr(settings.pagination, "next_header", None)
    if header is not None:
        return response.headers.get(header)
    for target, text in _LINK.findall(", ".join(response.headers.getall("Link", ()))):
        parameters: dict[str, str] = {}
        for name, *quoted in _PARAMETER.findall(text):
            parameters.setdefault(name.lower(), "".join(quoted).lower())
        if "next" in parameters.get("rel", "").split() and parameters.get("results") != "false":
            return str(target)
    return None
