"""HTTP APIs as sources: the public names of their settings, pages and errors.

    async with HttpSource(HttpSettings(urls=("https://api.example.com/users",))) as source:
        async for page in source.pages("https://api.example.com/users"):
            ...

The caller extracts the records from the pages.
"""

from __future__ import annotations

from asyncbatch.core.secrets import Secret
from asyncbatch.sources.http.access.credentials import (
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    OAuth2Auth,
    QueryAuth,
)
from asyncbatch.sources.http.access.tls import TlsSettings
from asyncbatch.sources.http.base import HttpError, HttpFailure, Page, PageMark, Reason
from asyncbatch.sources.http.settings import (
    CursorPagination,
    FollowingRequest,
    HttpSettings,
    Incremental,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
    ParentRequests,
)
from asyncbatch.sources.http.source import Connections, HttpSource

__all__ = [
    "BasicAuth",
    "BearerAuth",
    "Connections",
    "CursorPagination",
    "FollowingRequest",
    "HeaderAuth",
    "HttpError",
    "HttpFailure",
    "HttpSettings",
    "HttpSource",
    "Incremental",
    "LinkHeaderPagination",
    "NextUrlPagination",
    "OAuth2Auth",
    "OffsetPagination",
    "Page",
    "PageMark",
    "PagePagination",
    "ParentRequests",
    "QueryAuth",
    "Reason",
    "Secret",
    "TlsSettings",
]
