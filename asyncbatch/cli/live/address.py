"""The address of the live page: its socket, its URL, and the requests that may see it."""

from __future__ import annotations

import errno
import hmac
import secrets
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from asyncbatch.errors import UsageError

_TOKEN_BYTES = 24
_BACKLOG = 64  # connections that wait until the server has started


class ListenSocket(NamedTuple):
    """A bound socket, and its address."""

    socket: socket.socket
    host: str  # as it was given, without brackets
    port: int
    is_loopback: bool

    @classmethod
    def open(cls, address: str) -> ListenSocket:
        """Bind a socket to HOST:PORT; port 0 is a free one. Raises UsageError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            family, *_, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            bound = socket.create_server((place[0], int(port)), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise UsageError(f"--live {address}: {_reason(error)}") from None
        return cls(bound, host, bound.getsockname()[1], ip_address(place[0]).is_loopback)

    @property
    def authority(self) -> str:
        """The host and the port of the URL. For all addresses of the machine, its name."""
        with suppress(ValueError):
            if ip_address(self.host).is_unspecified:
                return f"{socket.gethostname()}:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program uses this port: name another one, or write --live alone"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "this machine has no such address"
    return error.strerror or str(error)


class Access(NamedTuple):
    """The rules for requests.

    On the loopback, the Host header must name it: a foreign page, whose name has been bound to
    127.0.0.1, sends its own name (DNS rebinding). Elsewhere the URL has a token, which a foreign
    page does not know, so each name of this machine will do.
    """

    host: str
    token: str | None

    @classmethod
    def of(cls, listening: ListenSocket) -> Access:
        """Return the rules for a socket, with a new token if others can reach it."""
        token = None if listening.is_loopback else secrets.token_urlsafe(_TOKEN_BYTES)
        return cls(listening.host, token)

    def refusal(self, host: str, token: str) -> str | None:
        """Return the reason why a request is refused, by its Host header and its token."""
        if self.token is None:
            return None if self._is_own(host) else "This server does not have that name."
        if hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return None
        return "The token is missing or wrong: open the URL that asyncbatch has printed."

    def _is_own(self, host: str) -> bool:
        with suppress(ValueError):  # no address, or an invalid one
            name = urlsplit(f"//{host}").hostname or ""
            if name in ("localhost", self.host.lower()):
                return True
            return ip_address(name).is_loopback
        return False
