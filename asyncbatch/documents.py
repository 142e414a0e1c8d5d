"""What an opened file holds: one JSON text, or JSON Lines; plain or compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.codec.compression import SUFFIXES, check_not_cut, detect
from asyncbatch.codec.lines import tell_lines
from asyncbatch.content import CHUNK
from asyncbatch.records import STDIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.codec.judge import Judge
    from asyncbatch.content import Content
    from asyncbatch.settings import Format

LINES_ENDINGS = (".jsonl", ".ndjson")
"""File name endings of JSON Lines, less those of compressions."""


def unpack(content: Content, path: str, form: Format, judge: Judge) -> tuple[bool, Iterator[bytes]]:
    """Return whether a file holds JSON Lines, and its decompressed chunks.

    Raises OSError, TooLargeError, CorruptArchiveError, here or while chunks are taken.
    """
    if compression := detect(content.head):
        chunks = compression.chunks(content.stream(), CHUNK)
    else:
        check_not_cut(content.head, path)
        chunks = content.chunks()
    if form == "auto" and path == STDIN:
        return tell_lines(chunks, judge)
    return (form == "jsonl" if form != "auto" else named_lines(path)), chunks


def named_lines(path: str) -> bool:
    """Whether a name promises JSON Lines."""
    name = path.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(LINES_ENDINGS)
