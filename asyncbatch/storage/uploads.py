"""Uploads of objects: in one request, or in parts."""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncbatch.storage.listing import ObjectVersion
from asyncbatch.storage.store_errors import ObjectError, object_error

if TYPE_CHECKING:
    from asyncbatch.storage.stores import StoreLocation

PART_BYTES = 16 * 1024 * 1024  # bytes of a part, if the size of the object is unknown
MAX_PARTS = 10_000  # limit of S3 for the parts of an object
PARTS_IN_FLIGHT = 4  # parts that are uploaded at a time
_MAX_QUEUED_BLOCKS = 2  # blocks that wait for the upload


class _AbortedError(Exception):
    """Aborts an upload: the library then removes the uploaded parts."""


class MultipartUpload:
    """A multipart upload in progress, written by one thread.

    It is an iterator of blocks for the library, which sends them as parts from another thread. The
    library aborts the upload if the iterator or the store fails. Raises the errors of the library.
    """

    def __init__(
        self,
        location: StoreLocation,
        part_bytes: int = PART_BYTES,
        max_concurrency: int = PARTS_IN_FLIGHT,
    ) -> None:
        self._location, self._part, self._at_once = location, part_bytes, max_concurrency
        self._blocks: deque[bytes | bytearray | memoryview] = deque()
        self._changed = threading.Condition()
        self._is_complete = self._is_aborted = self._is_over = False
        self._result: Any = None
        self._error: BaseException | None = None
        # A daemon: it does not keep the process alive.
        self._thread = threading.Thread(target=self._upload, daemon=True)
        self._thread.start()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, which the caller must not change. Blocks while the store is slower."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._blocks) < _MAX_QUEUED_BLOCKS or self._is_over)
            if self._is_over:
                self._check()
            self._blocks.append(data)
            self._changed.notify_all()

    def complete(self) -> Any:
        """Complete the object and return the library's answer."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        self._thread.join()
        self._check()
        return self._result

    def abort(self, *, wait: bool = True) -> None:
        """Abort the upload unless it is complete. Safe to call from any thread."""
        with self._changed:
            self._is_aborted = True
            self._changed.notify_all()
        if wait:
            self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _upload(self) -> None:
        import obstore

        try:
            self._result = obstore.put(
                self._location.store,
                self._location.key,
                self,
                use_multipart=True,
                chunk_size=self._part,
                max_concurrency=self._at_once,
            )
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that writes
            self._error = error
        with self._changed:
            self._is_over = True
            self._blocks.clear()
            self._changed.notify_all()

    def __iter__(self) -> MultipartUpload:
        return self

    def __next__(self) -> bytes | bytearray | memoryview:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._is_complete or self._is_aborted)
            if self._is_aborted:
                raise _AbortedError
            if not self._blocks:
                raise StopIteration
            block = self._blocks.popleft()
            self._changed.notify_all()
            return block


class _EmptyUpload:
    """An empty iterator, which ends an upload before its first part."""

    def __iter__(self) -> _EmptyUpload:
        return self

    def __next__(self) -> bytes:
        raise _AbortedError


def try_upload(location: StoreLocation) -> None:
    """Start an upload and abort it. Raises the errors of the library."""
    import obstore

    try:
        obstore.put(location.store, location.key, _EmptyUpload(), use_multipart=True)
    except _AbortedError:
        return


_BLOCK_BYTES = 1024 * 1024  # bytes that are collected before they are passed to the upload


class ObjectWriter:
    """Writes the object at `url`, which appears when it is complete. For one thread.

    Up to `part_bytes` bytes are sent in one request; more are uploaded in parts, `max_concurrency`
    at a time. All methods but `abort` raise ObjectError.
    """

    def __init__(
        self,
        location: StoreLocation,
        url: str,
        part_bytes: int = PART_BYTES,
        *,
        max_concurrency: int = PARTS_IN_FLIGHT,
    ) -> None:
        self._location, self._url, self._part, self._at_once = (
            location,
            url,
            part_bytes,
            max_concurrency,
        )
        self._held: list[bytes | bytearray | memoryview] = []
        self._upload: MultipartUpload | None = None
        self._held_size = 0
        self._is_aborted = False
        self.size: int = 0  # bytes passed to `write`

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, which the caller must not change. Blocks while the store is slower."""
        if self.size + len(data) > self._part * MAX_PARTS:
            raise ObjectError(
                errno.EFBIG,
                f"the object would be larger than {self._part * MAX_PARTS >> 30} GiB, the limit of"
                f" {MAX_PARTS:,} parts: write several objects, with --shard or to a folder",
            )
        self.size += len(data)
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > (self._part if self._upload is None else _BLOCK_BYTES):
            try:
                self._start_multipart()
            except Exception as error:  # noqa: BLE001 - the library's errors have no common base class
                raise object_error(error, self._url) from None

    def complete(self) -> ObjectVersion:
        """Complete the object and return its version."""
        try:
            if self._upload is None:
                result = self._put()
            else:
                if self._held:
                    self._start_multipart()
                result = self._upload.complete()
        except Exception as error:  # noqa: BLE001 - see `write`
            raise object_error(error, self._url) from None
        return ObjectVersion(result["e_tag"] or "", self.size)

    def abort(self, *, wait: bool = True) -> None:
        """Abort the object unless it is complete.

        Without `wait`, it is safe to call from any thread.
        """
        self._is_aborted = True
        if self._upload is not None:
            self._upload.abort(wait=wait)

    def _start_multipart(self) -> None:
        """Start a multipart upload with the collected bytes as one block.

        Each block takes one turn of the uploading thread.
        """
        if self._upload is None:
            self._upload = MultipartUpload(self._location, self._part, self._at_once)
            if self._is_aborted:  # another thread may have called `abort` meanwhile
                self._upload.abort(wait=False)
        self._upload.write(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        self._held.clear()
        self._held_size = 0

    def _put(self) -> Any:
        import obstore

        data = b"".join(self._held)
        return obstore.put(self._location.store, self._location.key, data, use_multipart=False)


def check_writable(location: StoreLocation, url: str) -> None:
    """Check that `url` can be written: start an upload and abort it. Raises ObjectError."""
    import obstore

    try:
        try_upload(location)
        if url.startswith("az:"):  # Azure starts an upload without a request
            next(iter(obstore.list(location.store, location.key, chunk_size=1)), None)
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base class
        raise object_error(error, url) from None
