"""Extraction from HTTP APIs: the pages of a URL, one after the other, politely and exactly.

    async with HttpSource(HttpSettings(urls=("https://api.example.com/users",))) as source:
        async for page in source.pages("https://api.example.com/users"):
            ...

Knows nothing of what becomes of the records.
"""

from __future__ import annotations

from asyncbatch.http.connections import Connections
from asyncbatch.http.failure import HttpError, HttpFailure, Reason
from asyncbatch.http.page import Page, PageMark
from asyncbatch.http.settings import (
    BasicAuth,
    BearerAuth,
    CursorPagination,
    HeaderAuth,
    HttpSettings,
    Incremental,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
    QueryAuth,
)
from asyncbatch.http.source import HttpSource
from asyncbatch.secret import Secret

__all__ = [
    "BasicAuth",
    "BearerAuth",
    "Connections",
    "CursorPagination",
    "HeaderAuth",
    "HttpError",
    "HttpFailure",
    "HttpSettings",
    "HttpSource",
    "Incremental",
    "LinkHeaderPagination",
    "NextUrlPagination",
    "OffsetPagination",
    "Page",
    "PageMark",
    "PagePagination",
    "QueryAuth",
    "Reason",
    "Secret",
]
