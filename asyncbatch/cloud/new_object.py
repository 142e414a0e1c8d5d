"""An object that is written: there whole, or not at all."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from asyncbatch.cloud.parts import AT_ONCE, MOST_PARTS, PART, Parts, begin_and_abort
from asyncbatch.cloud.troubles import ObjectError, object_error
from asyncbatch.cloud.versions import Version

if TYPE_CHECKING:
    from asyncbatch.cloud.store import Place


_PIECE = 1024 * 1024
"""Bytes that are collected before they are handed on."""


class NewObject:
    """The object at `url`, written by one thread; an earlier one stays until it is complete.

    One of up to a part is held, and written at once; of more, parts of `part` bytes are uploaded
    as they come, `at_once` at a time. All but `abort` raises ObjectError.
    """

    def __init__(self, place: Place, url: str, part: int = PART, *, at_once: int = AT_ONCE) -> None:
        self._place, self._url, self._part, self._at_once = place, url, part, at_once
        self._held: list[bytes | bytearray | memoryview] = []
        self._parts: Parts | None = None
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
                self._hand_on()
            except Exception as error:  # noqa: BLE001 - the library's; what is ours passes through
                raise object_error(error, self._url) from None

    def complete(self) -> Version:
        """Put the object in its place."""
        try:
            if self._parts is None:
                result = self._put()
            else:
                if self._held:
                    self._hand_on()
                result = self._parts.complete()
        except Exception as error:  # noqa: BLE001 - see `write`
            raise object_error(error, self._url) from None
        return Version(result["e_tag"] or "", self.size)

    def abort(self, *, wait: bool = True) -> None:
        """Leave nothing, unless it is complete; from any thread if it need not `wait`."""
        self._is_aborted = True
        if self._parts is not None:
            self._parts.abort(wait=wait)

    def _hand_on(self) -> None:
        """Have what is held uploaded, in one piece: each takes a turn of the thread that does."""
        if self._parts is None:
            self._parts = Parts(self._place, self._part, self._at_once)
            if self._is_aborted:  # perhaps just now, by another thread
                self._parts.abort(wait=False)
        self._parts.write(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        self._held.clear()
        self._held_size = 0

    def _put(self) -> Any:  # noqa: ANN401 - the library's result
        import obstore  # noqa: PLC0415 - in an extra, and the place could be opened

        data = b"".join(self._held)
        return obstore.put(self._place.store, self._place.key, data, use_multipart=False)


def check_writable(place: Place, url: str) -> None:
    """See whether an object could be written at `url`, and leave nothing. Raises ObjectError."""
    import obstore  # noqa: PLC0415 - see above

    try:
        begin_and_abort(place)
        if url.startswith("az:"):  # where an upload begins without a word to the store
            next(iter(obstore.list(place.store, place.key, chunk_size=1)), None)
    except Exception as error:  # noqa: BLE001 - the library's
        raise object_error(error, url) from None
