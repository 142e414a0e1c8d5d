"""Requests for single objects of web servers, with a rule for redirects."""

from __future__ import annotations

import errno
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3 import exceptions

import asyncbatch
from asyncbatch.core.paths import ObjectPath
from asyncbatch.core.system import proxy_for
from asyncbatch.storage.object_access import (
    RANGE_BYTES,
    ObjectData,
    RangesRefusedError,
    StreamedResponse,
    check_length,
)
from asyncbatch.storage.store_errors import ChangedError, ObjectError, answer_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from asyncbatch.core.settings import StoreSettings

_CONNECT_SECONDS = 10
_CONNECTIONS = 64  # that are kept open to one server
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The origin of a URL, as browsers define it."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of `url`. Raises ValueError for an invalid port."""
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        return cls(scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(scheme))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{host}" + ("" if is_default else f":{self.port}")


class WebAccess:
    """The ObjectAccess for web servers. Safe for several threads; it keeps connections.

    A redirect is followed within the origin of the URL, and to the origins that the settings
    allow. These receive neither the user and password of the URL nor a referrer.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._allowed = {Origin.of(origin) for origin in settings.allow_origins}
        self._timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=settings.timeout)
        self._managers: dict[str | None, urllib3.PoolManager] = {}  # by proxy
        self._lock = threading.Lock()

    def head(self, url: str) -> ObjectPath:
        with _translated_errors():
            response = self._request("HEAD", url)
            response.release_conn()
        _check_status(response, url)
        return ObjectPath(url, _length(response), response.headers.get("ETag"))

    def whole(self, url: str, limit: int | None) -> ObjectData | StreamedResponse:
        with _translated_errors():
            response = self._request("GET", url)
            size = self._length_of_body(response, url)
            if limit is not None and size > limit:
                return StreamedResponse(_stream(response), size)
            data = response.read(decode_content=False)
            response.release_conn()
        check_length(data, size)
        return ObjectData(data, size, response.headers.get("ETag"))

    def range(self, url: str, start: int, end: int, etag: str | None) -> ObjectData:
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if etag is not None and not etag.startswith("W/"):  # servers do not compare weak ETags
            headers["If-Match"] = etag
        with _translated_errors():
            response = self._request("GET", url, headers)
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if response.status == 200 or (response.status == 206 and found is None):
                response.close()
                raise RangesRefusedError
            self._length_of_body(response, url)
            seen = response.headers.get("ETag")
            if etag is not None and seen not in (None, etag):
                response.close()
                raise ChangedError
            data = response.read(decode_content=False)
            response.release_conn()
        assert found is not None  # as an answer that is no part has raised
        first, _, size = map(int, found.groups())
        if first != start:
            raise ObjectError(errno.EINVAL, f"the server sent bytes from {first:,}, not {start:,}")
        check_length(data, max(0, min(end, size) - start))
        return ObjectData(data, size, seen)

    def _length_of_body(self, response: BaseHTTPResponse, url: str) -> int:
        """Return the length of a successful response; else close it and raise ObjectError."""
        try:
            _check_status(response, url)
            return _length(response)
        except ObjectError:
            response.close()
            raise

    def _request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None
    ) -> BaseHTTPResponse:
        """Return the open response of `url` after redirects."""
        wanted = {"Accept": "*/*", "Accept-Encoding": "identity", **(headers or {})}
        wanted["User-Agent"] = f"asyncbatch/{asyncbatch.__version__}"
        home = _origin(url)
        target, credentials = _without_user_info(url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._manager(target).request(
                method,
                target,
                headers=wanted | (credentials if _origin(target) == home else {}),
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            link = response.headers.get("Location")
            if response.status not in _REDIRECTS or link is None:
                return response
            response.close()
            target = self._redirected(target, link, home)
        raise ObjectError(errno.EINVAL, f"redirected more than {_MAX_REDIRECTS} times")

    def _redirected(self, url: str, link: str, home: Origin) -> str:
        """Return the URL that a redirect leads to, without user. Raises ObjectError."""
        try:
            target, _ = _without_user_info(urljoin(url, link))
            origin = Origin.of(target)
        except ValueError:
            raise ObjectError(errno.EINVAL, "redirects to a URL that is not valid") from None
        if origin.scheme not in _DEFAULT_PORTS:
            raise ObjectError(
                errno.EINVAL, f"redirects to {origin.scheme}:, which is neither http nor https"
            )
        if origin != home and origin not in self._allowed:
            raise ObjectError(
                errno.EINVAL,
                f"redirects to another origin, {origin} (--allow-origins permits it)",
            )
        return target

    def _manager(self, url: str) -> urllib3.PoolManager:
        """Return the connections to servers, through the proxy of the environment, if any."""
        parts = urlsplit(url)
        proxy = proxy_for(parts.scheme, parts.netloc)
        with self._lock:
            manager = self._managers.get(proxy)
            if manager is None:
                manager = self._managers[proxy] = _open_manager(proxy)
        return manager


def _open_manager(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(maxsize=_CONNECTIONS)
    address, _ = _without_user_info(proxy)
    user, at, _ = urlsplit(proxy).netloc.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    return urllib3.ProxyManager(address, maxsize=_CONNECTIONS, proxy_headers=headers)


def _origin(url: str) -> Origin:
    try:
        return Origin.of(url)
    except ValueError:
        raise ObjectError(errno.EINVAL, "is not a valid URL") from None


def _without_user_info(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without user, password and fragment, and the header with the former."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    headers = urllib3.make_headers(basic_auth=unquote(user)) if at else {}
    return parts._replace(netloc=host, fragment="").geturl(), headers


def _check_status(response: BaseHTTPResponse, url: str) -> None:
    if response.status == 412:  # the object has not the ETag that it had
        raise ChangedError
    if response.status not in (200, 206):
        raise answer_error(response.status, None, url)


def _length(response: BaseHTTPResponse) -> int:
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise ObjectError(errno.EINVAL, "the server does not report its length")
    return int(length)


def _stream(response: BaseHTTPResponse) -> Iterator[bytes]:
    try:
        with _translated_errors():
            yield from response.stream(RANGE_BYTES, decode_content=False)
    finally:
        response.close()


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Translate the library's errors into ObjectErrors. Their texts may contain secrets."""
    try:
        yield
    except exceptions.SSLError as error:
        raise ObjectError(errno.EINVAL, f"no connection: {_reason(error)}") from None
    except (exceptions.NewConnectionError, exceptions.ProxyError) as error:
        raise ObjectError(errno.ECONNRESET, f"no connection: {_reason(error)}") from None
    except exceptions.TimeoutError:
        raise ObjectError(errno.ECONNRESET, "the server did not answer in time") from None
    except exceptions.ProtocolError as error:
        is_short = any(isinstance(one, exceptions.IncompleteRead) for one in _causes(error))
        broken = "the response ended early" if is_short else "the connection broke"
        raise ObjectError(errno.ECONNRESET, broken) from None
    except exceptions.HTTPError as error:
        name = type(error).__name__
        raise ObjectError(errno.EINVAL, f"the URL cannot be requested ({name})") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it, the last first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        nested = next((one for one in seen.args if isinstance(one, BaseException)), None)
        seen = nested or seen.__cause__ or seen.__context__


def _reason(error: BaseException) -> str:
    """Return the system's reason for an error, which has no secrets."""
    reasons = [one.strerror for one in _causes(error) if isinstance(one, OSError) and one.strerror]
    return reasons[-1] if reasons else type(error).__name__
