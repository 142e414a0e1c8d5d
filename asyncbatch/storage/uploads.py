"""Write objects: single put and multipart."""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncbatch.storage.listing import ObjectVersion
from asyncbatch.storage.store_errors import ObjectError, object_error

if TYPE_CHECKING:
    from asyncbatch.storage.stores import StoreLocation

PART = 16 * 1024 * 1024  # bytes of a part, if the size of the object is unknown
MOST_PARTS = 10_000  # Parts that an object may have.
AT_ONCE = 4  # Parts on their way at a time.
_WAITING = 2  # blocks that wait for the upload


class _AbortedError(Exception):
    """Aborts an upload: the library then removes its parts."""


class MultipartUpload:
    """A multipart upload in progress, written by one thread.

    It is an iterator of blocks for the library, which sends them as parts. The library aborts the
    upload if the iterator or the store fails. Raises the errors of the library.
    """

    def __init__(self, place: StoreLocation, part: int = PART, at_once: int = AT_ONCE) -> None:
        self._place, self._part, self._at_once = place, part, at_once
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._changed = threading.Condition()
        self._is_complete = self._is_aborted = self._is_over = False
        self._result: Any = None
        self._error: BaseException | None = None
        # It is no reason for a process to live on.
        self._thread = threading.Thread(target=self._upload, daemon=True)
        self._thread.start()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, which the caller must not change. Blocks while the store is slower."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) < _WAITING or self._is_over)
            if self._is_over:
                self._check()
            self._pieces.append(data)
            self._changed.notify_all()

    def complete(self) -> Any:
        """Complete the object; return the answer of the library."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        self._thread.join()
        self._check()
        return self._result

    def abort(self, *, wait: bool = True) -> None:
        """Leave nothing, unless it is complete; from any thread."""
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
                self._place.store,
                self._place.key,
                self,
                use_multipart=True,
                chunk_size=self._part,
                max_concurrency=self._at_once,
            )
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that writes
            self._error = error
        with self._changed:
            self._is_over = True
            self._pieces.clear()
            self._changed.notify_all()

    def __iter__(self) -> MultipartUpload:
        return self

    def __next__(self) -> bytes | bytearray | memoryview:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._is_complete or self._is_aborted)
            if self._is_aborted:
                raise _AbortedError
            if not self._pieces:
                raise StopIteration
            piece = self._pieces.popleft()
            self._changed.notify_all()
            return piece


class _NoBytes:
    """An empty iterator, which ends an upload before its first part."""

    def __iter__(self) -> _NoBytes:
        return self

    def __next__(self) -> bytes:
        raise _AbortedError


def try_upload(place: StoreLocation) -> None:
    """Start an upload and abort it. Raises the errors of the library."""
    import obstore

    try:
        obstore.put(place.store, place.key, _NoBytes(), use_multipart=True)
    except _AbortedError:
        return


_PIECE = 1024 * 1024  # bytes that are collected before they are sent


class ObjectWriter:
    """Writes the object at `url`, from one thread; it appears when it is complete.

    Up to `part` bytes are sent in one request; more are uploaded in parts, `at_once` at a time. All
    methods but `abort` raise ObjectError.
    """

    def __init__(
        self, place: StoreLocation, url: str, part: int = PART, *, at_once: int = AT_ONCE
    ) -> None:
        self._place, self._url, self._part, self._at_once = place, url, part, at_once
        self._held: list[bytes | bytearray | memoryview] = []
        self._parts: MultipartUpload | None = None
        self._held_size = 0
        self._is_aborted = False
        self.size = 0
        """How many bytes `write` was given."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, which the caller must not change. Blocks while the store is slower."""
        if self.size + len(data) > self._part * MOST_PARTS:
            raise ObjectError(
                errno.EFBIG,
                f"it would be larger than {self._part * MOST_PARTS >> 30} GiB, all that fits into"
                f" {MOST_PARTS:,} parts: write several, by --shard or into a folder",
            )
        self.size += len(data)
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > (self._part if self._parts is None else _PIECE):
            try:
                self._start_multipart()
            except Exception as error:  # noqa: BLE001 - the library's; our own errors pass through
                raise object_error(error, self._url) from None

    def complete(self) -> ObjectVersion:
        """Put the object in its place."""
        try:
            if self._parts is None:
                result = self._put()
            else:
                if self._held:
                    self._start_multipart()
                result = self._parts.complete()
        except Exception as error:  # noqa: BLE001 - see `write`
            raise object_error(error, self._url) from None
        return ObjectVersion(result["e_tag"] or "", self.size)

    def abort(self, *, wait: bool = True) -> None:
        """Leave nothing, unless it is complete; from any thread if it need not `wait`."""
        self._is_aborted = True
        if self._parts is not None:
            self._parts.abort(wait=wait)

    def _start_multipart(self) -> None:
        """Start a multipart upload with the collected bytes as one block.

        Each block takes one turn of the uploading thread.
        """
        if self._parts is None:
            self._parts = MultipartUpload(self._place, self._part, self._at_once)
            if self._is_aborted:  # perhaps just now, by another thread
                self._parts.abort(wait=False)
        self._parts.write(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        self._held.clear()
        self._held_size = 0

    def _put(self) -> Any:
        import obstore

        data = b"".join(self._held)
        return obstore.put(self._place.store, self._place.key, data, use_multipart=False)


def check_writable(place: StoreLocation, url: str) -> None:
    """Start an upload to `url` and abort it. Raises ObjectError."""
    import obstore

    try:
        try_upload(place)
        if url.startswith("az:"):  # where an upload begins without a word to the store
            next(iter(obstore.list(place.store, place.key, chunk_size=1)), None)
    except Exception as error:  # noqa: BLE001 - the library's
        raise object_error(error, url) from None
