"""Objects of a store that are written like atomic files."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.storage.atomic import AtomicFile
from asyncbatch.storage.store_errors import ObjectError
from asyncbatch.storage.stores import Stores
from asyncbatch.storage.uploads import MAX_PARTS, PART_BYTES, ObjectWriter, check_writable

if TYPE_CHECKING:
    from asyncbatch.core.settings import StoreSettings

_CHUNK = 1024 * 1024


class ObjectFile(AtomicFile):
    """An object that is uploaded while it is written, in parts if it is large.

    It has no `stream`: use `write`.
    """

    temp_path: str
    size: int

    def __init__(self, url: str, settings: StoreSettings, *, is_checked: bool = False) -> None:
        super().__init__(url)
        self._is_checked = is_checked
        self.final_path = self.temp_path = url
        self._settings = settings
        self._object: ObjectWriter

    def open(self) -> None:
        """Start the object. Raises UsageError if the store refuses writes."""
        try:
            location = Stores(self._settings, writes=True).location(self.path)
            if not self._is_checked:
                check_writable(location, self.path)
        except ObjectError as error:
            raise UsageError(f"cannot write {self.path}: {error}") from None
        self._object = ObjectWriter(location, self.path)

    def write(self, data: bytes | bytearray) -> None:
        """Upload bytes; blocks while the store is slower. Raises SinkError."""
        try:
            self._object.write(data)
        except ObjectError as error:
            raise self.sink_error(error) from None
        self.size = self._object.size

    def sync(self) -> None:
        """Do nothing: a store keeps only complete objects."""

    def commit(self) -> None:
        """Complete the object. Raises SinkError."""
        try:
            self._object.complete()
        except ObjectError as error:
            raise self.sink_error(error) from None

    def discard(self) -> None:
        """Abort the upload; an earlier object stays as it was."""
        self._object.abort()

    def abandon(self) -> None:
        """End a wait for the store. Safe to call from any thread."""
        self._object.abort(wait=False)


class SpooledObject(AtomicFile):
    """An object that is written to a temporary file, then uploaded.

    For formats that are not written from beginning to end. Each object has its own folder in the
    system's folder for temporary files.
    """

    temp_path: str

    def __init__(self, url: str, settings: StoreSettings, *, is_checked: bool = False) -> None:
        super().__init__(url)
        self._is_checked = is_checked
        self._settings = settings
        self._folder: str | None = None
        self._object: ObjectWriter | None = None
        self._is_abandoned = False

    def open(self) -> None:
        """Start, or restart. Raises UsageError if the store or the disk refuses writes."""
        if self._folder is None:
            try:
                self._place = Stores(self._settings, writes=True).location(self.path)
                if not self._is_checked:
                    check_writable(self._place, self.path)
                self._folder = tempfile.mkdtemp(prefix="asyncbatch-")
            except OSError as error:
                raise UsageError(f"cannot write {self.path}: {error.strerror}") from None
            self.temp_path = os.path.join(self._folder, os.path.basename(self.path))
        super().open()

    def commit(self) -> None:
        """Upload the file. Raises SinkError."""
        try:
            self.stream.close()
            self._upload()
        except ObjectError as error:
            raise SinkError(f"cannot write {self.path}: {error}", self.path) from None
        except OSError as error:
            raise self.sink_error(error) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Abort the upload and remove the temporary file."""
        super().discard()
        if self._object is not None:
            self._object.abort()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        self._is_abandoned = True
        if self._object is not None:
            self._object.abort(wait=False)

    def sink_error(self, error: OSError) -> SinkError:
        where = f" (the temporary file is in {tempfile.gettempdir()})"
        return SinkError(f"cannot write {self.path}: {error.strerror or error}{where}", self.path)

    def _upload(self) -> None:
        with open(self.temp_path, "rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            part = max(PART_BYTES, -(-length // (MAX_PARTS * _CHUNK)) * _CHUNK)
            self._object = ObjectWriter(self._place, self.path, part)
            while not self._is_abandoned and (data := stream.read(_CHUNK)):
                self._object.write(data)
        if self._is_abandoned:
            raise ObjectError(errno.ECANCELED, "the run was stopped")
        self._object.complete()
