"""What a source yields: pages, and where to go on after them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class PageMark(Struct, frozen=True):
    """Where a later run goes on: the next page's URL, without credentials, and its number."""

    link: str
    number: int


class Page(Struct, frozen=True):
    """One answer, or some whole lines of one in JSON Lines.

    `url` is shown to people, without secrets. `number` counts from 1; the stretches of a streamed
    answer share it, and `line` (from 1) and `byte` (from 0) are where in the answer each begins.
    `body` is one valid JSON text, or lines that nobody has judged. `mark` is where a later run
    goes on behind this; None if the pages are not stable (by page number and offset), behind the
    last, and but for the last stretch of an answer. `is_last` if it is known that none follows.
    """

    url: str
    number: int
    body: bytes
    content_type: str
    format: Literal["json", "jsonl"] = "json"
    mark: PageMark | None = None
    is_last: bool = False
    line: int = 1
    byte: int = 0
