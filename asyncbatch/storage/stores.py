"""Clients of object stores: one per bucket, which keeps its connections."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.paths import parse_address, redact_url
from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError
from asyncbatch.storage.store_errors import library_reason

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from asyncbatch.core.paths import Address
    from asyncbatch.core.settings import StoreSettings

_CONNECT_SECONDS = 10
_REQUEST_SECONDS = 600  # for one response with its body, which has at most a few megabytes
_UPLOAD_RETRIES = 8  # minimum: one lost part loses the whole upload
_MAX_BACKOFF_SECONDS = 10
# environment variables that name the endpoint if no option does
_ENDPOINT_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ENDPOINT_OPTIONS = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}


class StoreLocation(NamedTuple):
    """An object, or a prefix, for the library: a store, and the key within it."""

    store: ObjectStore
    key: str


class Stores:
    """Opens a client for each bucket once. Safe for several threads.

    Each process makes its own, because it cannot be pickled; its settings can. With `writes`, the
    library itself retries, because only the library has the parts of an upload.
    """

    settings: StoreSettings

    def __init__(self, settings: StoreSettings, *, writes: bool = False) -> None:
        self.settings, self._writes = settings, writes
        self._opened: dict[tuple[str, str], ObjectStore] = {}
        self._lock = threading.Lock()

    def location(self, url: str) -> StoreLocation:
        """Return the store and the key of `url`, without a request. Raises UsageError."""
        address = parse_address(url)
        key = address.scheme, address.bucket
        with self._lock:
            store = self._opened.get(key)
            if store is None:
                store = self._opened[key] = self._open(address)
        return StoreLocation(store, address.key)

    def _open(self, address: Address) -> ObjectStore:
        try:
            from obstore import exceptions, store
        except ImportError:
            raise UsageError(
                f"{address.scheme}:// URLs need an extra package: {install_command('cloud')}"
            ) from None
        try:
            options = self._options(address)
            match address.scheme:
                case "s3":
                    from asyncbatch.storage.credentials import s3_credentials

                    options |= s3_credentials(anonymous=self.settings.anonymous)
                    return store.S3Store(address.bucket, **options)
                case "gs":
                    return store.GCSStore(address.bucket, **options)
                case _:
                    return store.AzureStore(address.bucket, **options)
        except (exceptions.BaseError, ValueError) as error:
            reason = library_reason(error)
            raise UsageError(f"{redact_url(str(address))} cannot be opened: {reason}") from None

    def _options(self, address: Address) -> dict[str, Any]:
        from datetime import timedelta

        scheme, settings = address.scheme, self.settings
        # It counts from the start of a request: a part may take minutes on a slow connection.
        read_timeout = _REQUEST_SECONDS if self._writes else settings.timeout
        client: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=read_timeout),
            "timeout": timedelta(seconds=_REQUEST_SECONDS),
        }
        options: dict[str, Any] = {
            "client_options": client,
            "retry_config": self._retry_config(),
        }
        endpoints = (os.environ.get(name) for name in _ENDPOINT_VARIABLES[scheme])
        endpoint = settings.endpoint or next(filter(None, endpoints), None)
        if endpoint is not None:
            options[_ENDPOINT_OPTIONS[scheme]] = endpoint
            client["allow_http"] = endpoint.startswith("http://")
        if settings.anonymous:
            options["skip_signature"] = True
        return options

    def _retry_config(self) -> dict[str, Any]:
        from datetime import timedelta

        # Our own retries are counted for the report; the library does not report its retries.
        config: dict[str, Any] = {"max_retries": 0}
        if self._writes:
            retries = self.settings.retries
            first = timedelta(seconds=retries.delay)
            longest = max(first, timedelta(seconds=_MAX_BACKOFF_SECONDS))
            config["max_retries"] = max(retries.count, _UPLOAD_RETRIES)
            config["backoff"] = {"init_backoff": first, "max_backoff": longest, "base": 2}
        return config | {"retry_timeout": timedelta(seconds=_REQUEST_SECONDS)}
