"""A real S3 API on loopback, moto's, behind a proxy of ours that misbehaves on demand.

    with S3Server() as s3:
        s3.put("bucket", "a/1.json", b"{}")
        s3.fail(503, "SlowDown", times=3)
        ...  # use s3.url as the endpoint, from anywhere, also from other processes
        assert s3.requests == 4

The proxy knows nothing of S3: it hands on what it is asked, counts requests and connections, and
does what the next of the behaviours that were asked for says.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.servers import end_connections

REGION = "us-east-1"
KEYS = ("AKIAEXAMPLEASYNCBATCH", "a-secret-key-that-nobody-may-see")
"""Credentials that tests use; moto takes any. The second must turn up nowhere."""

_START_SECONDS = 300
_LOOK_SECONDS = 0.002
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}

_PROGRAM = """
import json, os, sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
for line in sys.stdin:  # until whoever started us ends
    bucket, keys, body = json.loads(line)
    for key in keys:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, body.encode())
    print("done", flush=True)
os._exit(0)
"""

Answer = Callable[["S3Server", web.Request], Awaitable[web.StreamResponse]]


class Seen(NamedTuple):
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class _Behaviour(NamedTuple):
    match: Callable[[web.Request], bool]
    answer: Answer


class S3Server:
    """See the module. What it has seen may be read, and how it behaves changed, while it runs."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.delay = 0.0
        """Seconds that each answer takes longer."""
        self.at_once = self.most_at_once = 0
        self._hold: tuple[int, str, int] = (0, "", 0)
        self._peers: set[object] = set()
        self._behaviours: deque[_Behaviour] = deque()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._port = 0
        self._moto = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        assert self._moto.stdout is not None
        self._behind = f"http://127.0.0.1:{int(self._moto.stdout.readline())}"
        self._thread.start()
        assert self._ready.wait(_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
        self._moto.kill()
        self._moto.communicate()

    # What tests ask and say

    @property
    def url(self) -> str:
        """The endpoint: through the proxy."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which Amazon's clients, and the command, find it and may use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEYS[0],
            "AWS_SECRET_ACCESS_KEY": KEYS[1],
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def requests(self) -> int:
        """How many requests came since `forget`."""
        return len(self.seen)

    @property
    def connections(self) -> int:
        """How many connections they came over."""
        return len(self._peers)

    def asked(self, method: str, pattern: str = "") -> list[Seen]:
        """Return the requests of a method whose path has the regex in it."""
        return [one for one in self.seen if one.method == method and re.search(pattern, one.path)]

    def hold(self, count: int, method: str, *, skip: int = 0) -> None:
        """Answer to `method` only once `count` requests came at once, but the first `skip` now."""
        self._hold = (count, method, skip)

    def forget(self) -> None:
        """Count from none again, and behave."""
        self.seen.clear()
        self._peers.clear()
        self._behaviours.clear()
        self.delay, self.most_at_once, self._hold = 0.0, 0, (0, "", 0)

    def clear(self) -> None:
        """Be as new: without buckets, counting from none."""
        urlopen(Request(f"{self._behind}/moto-api/reset", method="POST")).close()
        self.forget()

    @property
    def client(self) -> Any:
        """Amazon's client, past the proxy."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self._behind,
            region_name=REGION,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            config=Config(request_checksum_calculation="when_required"),
        )

    def bucket(self, name: str, objects: dict[str, bytes | str] | None = None) -> str:
        """Make a bucket with objects in it; return its URL, with a slash at the end."""
        client = self.client
        client.create_bucket(Bucket=name)
        for key, body in (objects or {}).items():
            client.put_object(Bucket=name, Key=key, Body=body)
        return f"s3://{name}/"

    def many(self, name: str, keys: Sequence[str], body: str) -> None:
        """Make a bucket with many objects that hold the same, without asking for each."""
        self.client.create_bucket(Bucket=name)
        assert self._moto.stdin is not None
        assert self._moto.stdout is not None
        print(json.dumps([name, list(keys), body]), file=self._moto.stdin, flush=True)
        assert self._moto.stdout.readline() == "done\n"

    def put(self, bucket: str, key: str, body: bytes | str) -> None:
        """Write an object."""
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, bucket: str, key: str) -> bytes:
        """Return what an object holds."""
        body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return all keys below a prefix, in order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of multipart uploads that are neither completed nor given up."""
        found = self.client.list_multipart_uploads(Bucket=bucket)
        return [one["Key"] for one in found.get("Uploads", ())]

    # Misbehaving. `path` is a regex that is to be in the path, `method` that of the request.

    def fail(
        self,
        status: int,
        code: str = "InternalError",
        *,
        times: int = 1,
        path: str = "",
        method: str = "GET",
        ranges: str = "",
    ) -> None:
        """Answer the next requests so, and do nothing: (500), (503, "SlowDown"), (403, ...).

        `ranges` is a regex that is to be in the header Range.
        """

        async def answer(_: S3Server, request: web.Request) -> web.StreamResponse:
            await request.read()
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>"
            return web.Response(status=status, text=body, content_type="application/xml")

        self._misbehave(answer, times, path, method, ranges)

    def truncate(self, *, times: int = 1, path: str = "", keep: float = 0.5) -> None:
        """Break off the next answers after a part of the body, as if the connection had died."""

        async def answer(server: S3Server, request: web.Request) -> web.StreamResponse:
            status, headers, body = await server._behind_it(request)
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = len(body)
            await response.prepare(request)
            await response.write(body[: int(len(body) * keep)])
            assert request.transport is not None
            await asyncio.sleep(0.02)  # so that what was written goes out before
            request.transport.abort()
            return response

        self._misbehave(answer, times, path, "GET")

    def reset(self, *, times: int = 1, path: str = "", method: str = "GET") -> None:
        """Close the connection instead of answering."""

        async def answer(_: S3Server, request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self._misbehave(answer, times, path, method)

    def slow(self, seconds: float, *, times: int = 1, path: str = "", method: str = "GET") -> None:
        """Answer the next requests late."""

        async def answer(server: S3Server, request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(seconds)
            return await server._handed_on(request)

        self._misbehave(answer, times, path, method)

    def before(
        self, action: Callable[[], object], *, path: str = "", method: str = "GET", skip: int = 0
    ) -> None:
        """Do something in the midst: before a request is answered, `skip` such after the next."""

        async def answer(server: S3Server, request: web.Request) -> web.StreamResponse:
            await asyncio.to_thread(action)
            return await server._handed_on(request)

        async def plain(server: S3Server, request: web.Request) -> web.StreamResponse:
            return await server._handed_on(request)

        self._misbehave(plain, skip, path, method)
        self._misbehave(answer, 1, path, method)

    def _misbehave(
        self, answer: Answer, times: int, path: str, method: str, ranges: str = ""
    ) -> None:
        def match(request: web.Request) -> bool:
            if request.method != method or not re.search(ranges, request.headers.get("Range", "")):
                return False
            return bool(re.search(path, request.path_qs))

        self._behaviours.extend([_Behaviour(match, answer)] * times)

    # The proxy

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 31)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # typed as an abstract server
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            self._ready.set()
            await self._stop.wait()
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # such as answers that were slow
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await end_connections()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Seen(request.method, unquote(request.path), dict(request.query), dict(request.headers))
        )
        self._peers.add(request.transport)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            count, method, skip = self._hold
            if request.method == method and len(self.seen) > skip:
                while self.most_at_once < count:
                    await asyncio.sleep(_LOOK_SECONDS)
            for behaviour in self._behaviours:
                if behaviour.match(request):
                    self._behaviours.remove(behaviour)
                    return await behaviour.answer(self, request)
            return await self._handed_on(request)
        finally:
            self.at_once -= 1

    async def _handed_on(self, request: web.Request) -> web.StreamResponse:
        status, headers, body = await self._behind_it(request)
        if request.method != "HEAD":
            return web.Response(status=status, headers=headers, body=body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = int(body)
        await response.prepare(request)
        return response

    async def _behind_it(self, request: web.Request) -> tuple[int, CIMultiDict[str], bytes]:
        """Return what moto answers: status, headers, body, or of a HEAD the body's length."""
        path, mark, query = request.raw_path.partition("?")
        path = quote(unquote(path), safe="/")  # moto knows no bucket by an escaped name
        url = URL(f"{self._behind}{path}{mark}{query}", encoded=True)
        data = BytesIO(await request.read())
        kept = {n: v for n, v in request.headers.items() if n.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method,
            url,
            headers=kept,
            data=data if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            headers = CIMultiDict(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_BY_HOP
            )
            if request.method == "HEAD":
                body = answer.headers.get("Content-Length", "0").encode()
            return answer.status, headers, body
