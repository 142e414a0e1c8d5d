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

PART = 16 * 1024 * 1024
"""Bytes of a part, if nobody knows how many there will be."""
MOST_PARTS = 10_000
"""Parts that an object may have."""
AT_ONCE = 4
"""Parts on their way at a time."""
_WAITING = 2
"""Pieces that wait to be taken: as many bytes as they are given in at a time."""


class _AbortedError(Exception):
    """Ends an upload, of which the library then leaves nothing."""


class MultipartUpload:
    """An upload of `place` that has begun; one thread writes. Raises what the library raises.

    It is an iterator of pieces for the library, which makes parts of them, and aborts the upload
    if the iterator, or the store, fails.
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
        """Add bytes, which stay as they are; waits while the store is slower."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) < _WAITING or self._is_over)
            if self._is_over:
                self._check()
            self._pieces.append(data)
            self._changed.notify_all()

    def complete(self) -> Any:
        """Have the object appear; return what the library says of it."""
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
    """An upload's pieces that end it before there are any."""

    def __iter__(self) -> _NoBytes:
        return self

    def __next__(self) -> bytes:
        raise _AbortedError


def try_upload(place: StoreLocation) -> None:
    """See whether an upload could begin, and leave nothing. Raises what the library raises."""
    import obstore

    try:
        obstore.put(place.store, place.key, _NoBytes(), use_multipart=True)
    except _AbortedError:
        return


_PIECE = 1024 * 1024
"""Bytes that are collected before they are handed on."""


class ObjectWriter:
    """The object at `url`, written by one thread; an earlier one stays until it is complete.

    One of up to a part is held, and written at once; of more, parts of `part` bytes are uploaded
    as they come, `at_once` at a time. All but `abort` raises ObjectError.
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
        """Add bytes, which stay as they are; waits while the store is slower."""
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
            except Exception as error:  # noqa: BLE001 - the library's; what is ours passes through
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
        """Have what is held uploaded, in one piece: each takes a turn of the thread that does."""
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
    """See whether an object could be written at `url`, and leave nothing. Raises ObjectError."""
    import obstore

    try:
        try_upload(place)
        if url.startswith("az:"):  # where an upload begins without a word to the store
            next(iter(obstore.list(place.store, place.key, chunk_size=1)), None)
    except Exception as error:  # noqa: BLE001 - the library's
        raise object_error(error, url) from None
