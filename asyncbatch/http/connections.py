"""One pool of connections, shared by all sources of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientSession


class Connections:
    """An async context manager that any number may be in: the last who leaves closes the pool."""

    def __init__(self) -> None:
        self._users = 0
        self._session: ClientSession | None = None

    async def __aenter__(self) -> ClientSession:
        """Return the session that has the pool. Raises ImportError if aiohttp is not there."""
        from asyncbatch.http.session import open_session  # noqa: PLC0415 - aiohttp takes 190 ms, and is an extra

        if self._session is None:
            self._session = open_session()
        self._users += 1
        return self._session

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users and self._session is not None:
            session, self._session = self._session, None
            await session.close()
