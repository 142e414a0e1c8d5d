"""Extraction from HTTP APIs: the pages of a URL, one after the other, politely and exactly.

    async with HttpSource(HttpSettings(urls=("https://api.example.com/users",))) as source:
        async for page in source.pages("https://api.example.com/users"):
            ...

Knows nothing of what becomes of the records.
"""

from __future__ import annotations

from asyncbatch.core.secrets import Secret
from asyncbatch.sources.http.base import HttpError, HttpFailure, Page, PageMark, Reason
from asyncbatch.sources.http.settings import (
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
from asyncbatch.sources.http.source import Connections, HttpPages

__all__ = [
    "BasicAuth",
    "BearerAuth",
    "Connections",
    "CursorPagination",
    "HeaderAuth",
    "HttpError",
    "HttpFailure",
    "HttpPages",
    "HttpSettings",
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
