"""Real servers on loopback for the access to APIs: tokens, certificates, proxies, ETags."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import ssl
import subprocess
import threading
from base64 import b64decode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote_plus, urlsplit

CLIENT = ("my client", "s3cret:/&+word")
PROXY_USER = "joe:pr0xy-word"


class Certificates(NamedTuple):
    """Files of certificates, each with the key behind it."""

    ca: Path
    server: Path
    client: Path
    client_key: Path
    locked_key: Path
    password: str


def make_certificates(
    folder: Path, key_usage: tuple[str, ...] = ("-addext", "keyUsage=critical,keyCertSign")
) -> Certificates:
    """Make an authority, the certificates of a server and of a client, and an encrypted key."""

    def make(name: str, *more: str | Path) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={name}", "-out", cert, "-keyout", key, *more,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        return cert, key

    ca, ca_key = make("authority", *key_usage)
    signed = ("-CA", ca, "-CAkey", ca_key, "-addext", "basicConstraints=critical,CA:FALSE")
    server, server_key = make("server", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    server.write_bytes(server.read_bytes() + server_key.read_bytes())
    client, client_key = make("client", *signed)
    locked, password = folder / "locked.key", "l0cked-word"
    command = ["openssl", "pkey", "-in", client_key, "-aes256", "-passout", f"pass:{password}"]
    subprocess.run([*map(str, command), "-out", locked], check=True, capture_output=True)
    return Certificates(ca, server, client, client_key, locked, password)


class Request(NamedTuple):
    """One request, as it came."""

    method: str
    target: str
    headers: dict[str, str]  # by names in lower case
    form: dict[str, str]
    client: str  # the common name of the client's certificate, empty without one


class _Server(ThreadingHTTPServer):
    """A server in a thread, from `with` on."""

    daemon_threads = True
    scheme = "http"

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.seen: list[Request] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        """Return the whole URL of a path."""
        return self.origin + path

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients that refuse a certificate break connections."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class AccessApi(_Server):
    """An API whose /items needs a token that /token has given.

    `/plain` needs nothing. `/state` has an ETag and a date, and answers 304 if it is unchanged.
    """

    def __init__(self, certificates: Certificates | None = None, *, asks_client: bool = False):
        super().__init__(_ApiHandler)
        self.items: Any = [{"id": 1}, {"id": 2}]
        self.valid: set[str] = set()
        self.life: Any = 3600
        self.client_place = "basic"
        self.refresh_token: str | None = None  # that is valid; each use makes a new one
        self.token_answers: list[tuple[int, Any]] = []  # in place of the usual ones
        self.accepts_former = False  # a refresh token, until its successor is used
        self.former_refresh_token: str | None = None
        self.may_answer = threading.Event()  # for a token; refresh tokens are replaced before
        self.may_answer.set()
        self.tokens_at_once = self.most_at_once = 0
        self.token_lock = threading.Lock()
        self.has_etag = True
        if certificates is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.server)
            if asks_client:
                context.load_verify_locations(certificates.ca)
                context.verify_mode = ssl.CERT_REQUIRED
                # In 1.3 a client may see a broken connection in place of the reason.
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def of(self, path: str) -> list[Request]:
        """Return the requests of a path."""
        return [one for one in self.seen if urlsplit(one.target).path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for each read
    server: Any

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def note(self, form: dict[str, str] | None = None) -> Request:
        client = ""
        if isinstance(self.connection, ssl.SSLSocket):
            subject: Any = (self.connection.getpeercert() or {}).get("subject", ())
            client = dict(pair for part in subject for pair in part).get("commonName", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        found = Request(self.command, self.path, headers, form or {}, client)
        self.server.seen.append(found)
        return found

    def answer(self, status: int, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if status != 304:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _ApiHandler(_Handler):
    def do_GET(self) -> None:
        request = self.note()
        path = urlsplit(self.path).path
        if path == "/items":
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if token not in self.server.valid:
                self.answer(401, {"error": f"the token {token} is not valid"})
                return
        if path == "/state":
            self._state(request)
            return
        self.answer(200, self.server.items)

    def _state(self, request: Request) -> None:
        body = json.dumps(self.server.items).encode()
        digest = hashlib.sha256(body).hexdigest()[:10]
        tag = f'"{digest}"' if self.server.has_etag else None
        date = f"Mon, 02 Nov 2026 10:00:{int(digest, 16) % 60:02} GMT"
        unchanged = (
            request.headers.get("if-none-match") == tag
            if tag is not None
            else request.headers.get("if-modified-since") == date
        )
        headers = {"Last_Modified": date} | ({"ETag": tag} if tag else {})
        self.answer(304 if unchanged else 200, None if unchanged else self.server.items, **headers)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = dict(parse_qsl(self.rfile.read(length).decode(), keep_blank_values=True))
        request, server = self.note(form), self.server
        if server.token_answers:
            self.answer(*server.token_answers.pop(0))
            return
        client = (form.get("client_id", ""), form.get("client_secret", ""))
        if server.client_place == "basic":
            basic = b64decode(request.headers.get("authorization", "").partition(" ")[2]).decode()
            name, _, secret = basic.partition(":")
            client = (unquote_plus(name), unquote_plus(secret))
        if client != CLIENT:
            self.answer(401, {"error": "invalid_client", "error_description": f"not {client}"})
            return
        with server.token_lock:
            server.tokens_at_once += 1
            server.most_at_once = max(server.most_at_once, server.tokens_at_once)
            more = self._next_refresh_token(form)
        server.may_answer.wait()
        with server.token_lock:
            server.tokens_at_once -= 1
        if more is None:
            self.answer(400, {"error": "invalid_grant"})
            return
        token = f"t0ken-{len(server.of('/token'))}"
        server.valid.add(token)
        life = {} if server.life is None else {"expires_in": server.life}
        self.answer(200, {"access_token": token, "token_type": "bearer", **life, **more})

    def _next_refresh_token(self, form: dict[str, str]) -> dict[str, str] | None:
        """Return the field of the answer, empty without refresh tokens, None if it is refused."""
        server, given = self.server, form.get("refresh_token")
        if server.refresh_token is None:
            return {}
        is_former = server.accepts_former and given == server.former_refresh_token
        if given != server.refresh_token and not is_former:
            return None
        if not is_former:
            server.former_refresh_token = given
            server.refresh_token += "+"
        return {"refresh_token": server.refresh_token}


class ForwardProxy(_Server):
    """A proxy that forwards requests, and makes tunnels for CONNECT. It may ask for a `user`."""

    def __init__(self, user: str | None = None) -> None:
        super().__init__(_ProxyHandler)
        self.user = user


class _ProxyHandler(_Handler):
    def _is_allowed(self) -> bool:
        request = self.note()
        given = request.headers.get("proxy-authorization", "").partition(" ")[2]
        if self.server.user in (None, b64decode(given).decode()):
            return True
        self.answer(407, {"error": "who are you"}, Proxy_Authenticate='Basic realm="x"')
        return False

    def do_GET(self) -> None:
        if not self._is_allowed():
            return
        parts = urlsplit(self.path)
        with socket.create_connection((parts.hostname, parts.port)) as server:
            lines = [f"GET {parts.path} HTTP/1.1"]
            lines += [f"{k}: {v}" for k, v in self.headers.items() if not k.startswith("Proxy-")]
            server.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            while data := server.recv(65536):
                self.wfile.write(data)
        self.close_connection = True

    def do_CONNECT(self) -> None:
        if not self._is_allowed():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as server, suppress(OSError):
            self.send_response(200, "Connection established")
            self.end_headers()
            pair = {self.connection: server, server: self.connection}
            while True:
                for one in select.select(list(pair), [], [])[0]:
                    if not (data := one.recv(65536)):
                        self.close_connection = True
                        return
                    pair[one].sendall(data)


def proxies(**addresses: str) -> dict[str, str]:
    """Return variables of the environment that name proxies, and no others."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    empty = {name: "" for name in os.environ if name.lower() in names}
    return {**empty, **addresses}
