"""Inputs and outputs, opened by their path, local or in an object store."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol

from asyncbatch.core.paths import ObjectPath, is_store_url
from asyncbatch.core.retry import Retrier
from asyncbatch.core.settings import StoreSettings
from asyncbatch.storage.atomic import AtomicFile
from asyncbatch.storage.local import FIRST_READ_BYTES, open_byte_range, open_with_retries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.storage.local import Content
    from asyncbatch.storage.objects import ObjectReader


def open_output(
    path: str,
    stores: StoreSettings | None = None,
    *,
    random_access: bool = False,
    is_private: bool = False,
    is_checked: bool = False,
) -> AtomicFile:
    """Return the writer of the file or object at `path`.

    With `random_access`, written data can be read back, and the output can be restarted.
    `is_private`: only the owner may read the file. `is_checked`: the caller has checked that the
    store takes objects.
    """
    if not is_store_url(path):
        return AtomicFile(path, is_private=is_private)
    from asyncbatch.storage.object_file import (
        ObjectFile,
        SpooledObject,
    )

    kind = SpooledObject if random_access else ObjectFile
    return kind(path, stores or StoreSettings(), is_checked=is_checked)


class Opener:
    """Opens the inputs of a task. Safe for several threads.

    `files` retries errors of files as often as the user asked; errors of objects are always
    retried.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        self.files: Retrier = Retrier(settings.retries)
        self._stores = settings.stores
        self._lazy_objects: ObjectReader | None = None
        self._lock = threading.Lock()

    def take_retry_count(self) -> int:
        """Return the number of retries since the last call of this method."""
        return self.files.take_retry_count() + (
            self._lazy_objects.retrier.take_retry_count() if self._lazy_objects else 0
        )

    @property
    def threads(self) -> ThreadPoolExecutor:
        """The threads that wait for objects."""
        return self._objects.threads

    def open(
        self, path: str, limit: int | None = None, ahead: int = FIRST_READ_BYTES
    ) -> bytes | Content:
        """Return an input's bytes if it has about `ahead` bytes or fewer, else a `Content`.

        Raises OSError; TooLargeError if the stored input has more than `limit` bytes.
        """
        if isinstance(path, ObjectPath):
            from asyncbatch.storage.objects import open_object

            return open_object(self._objects, path, limit, ahead)
        return open_with_retries(self.files, path, limit, ahead)

    def byte_range(
        self, path: str, start: int, length: int, etag: str | None = None
    ) -> Iterator[bytes]:
        """Yield `length` bytes from `start`; of an object, the version with `etag`.

        Raises OSError, also if the input has become shorter.
        """
        if isinstance(path, ObjectPath):
            return self._objects.read_ranges(path, start, start + length, etag)
        return open_byte_range(path, start, length)

    def random_access(self, path: str) -> RandomAccess:
        """Return an input that can be read at any offset. Raises OSError."""
        if isinstance(path, ObjectPath):
            from asyncbatch.storage.objects import ObjectRandomAccess

            return ObjectRandomAccess(self._objects, path)
        return _FileRandomAccess(path)

    def size(self, path: str) -> int:
        """Return the stored size of an input in bytes. Raises OSError."""
        if isinstance(path, ObjectPath):
            from asyncbatch.storage.objects import object_size

            return object_size(self._objects, path)
        return os.stat(path).st_size

    @property
    def _objects(self) -> ObjectReader:
        with self._lock:
            if self._lazy_objects is None:
                from asyncbatch.storage.objects import ObjectReader

                self._lazy_objects = ObjectReader(self._stores)
            return self._lazy_objects


class RandomAccess(Protocol):
    """An input that one thread reads at any offset. `etag` is the ETag of an object."""

    size: int
    etag: str | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` with the bytes at `offset`; return their number."""
        ...

    def close(self) -> None:
        """Close the input."""
        ...


class _FileRandomAccess:
    """Random access to a local file."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self.etag: str | None = None

    def read_into(self, view: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(view) and (
            count := os.preadv(self._fd, [view[filled:]], offset + filled)
        ):
            filled += count
        return filled

    def close(self) -> None:
        os.close(self._fd)
