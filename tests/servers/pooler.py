"""A pooler of PostgreSQL transactions on loopback, as strict as PgBouncer is by default.

Each transaction of a client gets the server session that was idle for the longest time, so named
statements and settings of an earlier transaction are never there, or those of somebody else.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from typing import Any

from tests.servers import end_connections

SESSIONS = 3
# The only parameters of a session that PgBouncer takes, besides those that it is told to ignore.
TAKEN = (
    "user", "database", "application_name", "client_encoding", "datestyle", "timezone",
    "standard_conforming_strings",
)  # fmt: skip
_SSL, _GSS = 80877103, 80877104
_VERSION = 196608


class Pooler:
    """A pooler in front of the server on `port` of loopback, in a thread."""

    def __init__(self, port: int, ignored: tuple[str, ...] = ()) -> None:
        self._upstream, self._ignored = port, ignored
        self._loop = asyncio.new_event_loop()
        self._pools: dict[tuple[str, str], asyncio.Queue[Session]] = {}
        self._hello = b""
        self.refused: list[str] = []
        self.transactions = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener: asyncio.Server = self._call(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port: int = self._listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Close all sessions, and end."""

        async def close() -> None:
            self._listener.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pool in self._pools.values():
                while not pool.empty():
                    pool.get_nowait().writer.close()
            await end_connections()

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (pool := await self._greet(reader, writer)) is not None:
                await self._forward(reader, writer, pool)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Queue[Session] | None:
        """Answer the first messages of a client; return the pool of its sessions, or None."""
        while True:
            size, version = struct.unpack("!II", await reader.readexactly(8))
            body = await reader.readexactly(size - 8)
            if version not in (_SSL, _GSS):
                break
            writer.write(b"N")
        if version != _VERSION:  # a request to cancel
            return None
        words = body.rstrip(b"\0").decode().split("\0")
        settings = dict(zip(words[::2], words[1::2], strict=True))
        for name in settings:
            if name not in TAKEN and name not in self._ignored:
                self.refused.append(name)
                text = f"unsupported startup parameter: {name}"
                writer.write(_message(b"E", f"SFATAL\0VFATAL\0C08P01\0M{text}\0\0".encode()))
                await writer.drain()
                return None
        key = settings["user"], settings["database"]
        if key not in self._pools:
            self._pools[key] = asyncio.Queue()
            for _ in range(SESSIONS):
                session = await self._connect(*key)
                self._pools[key].put_nowait(session)
        writer.write(self._hello)
        return self._pools[key]

    async def _connect(self, user: str, database: str) -> Session:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        words = f"user\0{user}\0database\0{database}\0\0".encode()
        writer.write(struct.pack("!II", len(words) + 8, _VERSION) + words)
        hello = b""
        while True:
            kind, body = await _read(reader)
            hello += _message(kind, body)
            if kind == b"E":
                raise OSError(body)
            if kind == b"Z":
                self._hello = hello
                return Session(reader, writer)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pool: asyncio.Queue[Session],
    ) -> None:
        session: Session | None = None
        answers: asyncio.Task[None] | None = None
        try:
            while True:
                kind, body = await _read(reader)
                if kind == b"X":
                    return
                if session is None or session.is_free:
                    if answers is not None:
                        await answers
                    session = await pool.get()
                    self.transactions += 1
                    answers = asyncio.create_task(session.answer(writer, pool))
                session.send(kind, body)
        finally:
            if session is not None and not session.is_free:
                session.writer.close()  # in a transaction: the server rolls it back
                user_and_database = next(key for key, one in self._pools.items() if one is pool)
                pool.put_nowait(await self._connect(*user_and_database))
            if answers is not None:
                with suppress(Exception):
                    await answers


class Session:
    """A session of the server, lent to one client for each transaction."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._expected = 0
        self.is_free = True

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a message to the server."""
        self.is_free = False
        self._expected += kind in b"QSF"
        self.writer.write(_message(kind, body))

    async def answer(self, client: asyncio.StreamWriter, pool: asyncio.Queue[Session]) -> None:
        """Hand on the answers of the server until the transaction has ended."""
        while True:
            kind, body = await _read(self._reader)
            client.write(_message(kind, body))
            self._expected -= kind == b"Z"
            if kind == b"Z" and body == b"I" and not self._expected:
                self.is_free = True
                pool.put_nowait(self)
                return


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, size = struct.unpack("!cI", await reader.readexactly(5))
    return kind, await reader.readexactly(size - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body
