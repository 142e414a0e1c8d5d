"""A file that appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import IO

from asyncbatch.errors import SinkError, UsageError


class AtomicFile:
    """A file that is written beside its target and renamed over it when it is complete.

    A device is written directly. `stream` exists from `open` to `commit` or `discard`.
    """

    stream: IO[bytes]

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_special = os.path.exists(path) and not os.path.isfile(path)
        self.final_path = os.path.realpath(path)
        """A symbolic link stays: the file that it points to is replaced."""
        self.temp_path = path if self.is_special else f"{self.final_path}.{os.getpid()}.tmp"
        """The path that is written to."""
        self.size = 0
        """How many bytes `write` was given."""
        self._keeps_unfinished = False

    def keep_unfinished(self, temp_path: str) -> None:
        """Be written at `temp_path`, and stay there if it is not completed; before `open`.

        It is locked while it is written to.
        """
        self.temp_path, self._keeps_unfinished = temp_path, True

    def remove_unfinished(self) -> None:
        """Leave nothing if it is not completed, after all."""
        self._keeps_unfinished = False

    def open(self) -> None:
        """Begin. Raises UsageError if the file cannot be written."""
        if os.path.isdir(self.path):
            raise UsageError(f"cannot write {self.path}: it is a folder")
        try:
            self.stream = open(self.temp_path, "wb")  # noqa: SIM115 - closed at the end of the run
            if self._keeps_unfinished:
                fcntl.flock(self.stream, fcntl.LOCK_EX)
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}") from None

    def write(self, data: bytes | bytearray) -> None:
        """Write through to the system. Raises SinkError."""
        # Not by the stream, whose buffer would keep the rest after a full disk, and fail to sync.
        left, descriptor = memoryview(data), self.stream.fileno()
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            with suppress(OSError):  # a pipe has no length
                os.ftruncate(descriptor, self.size)  # and lines no halves
            raise self.sink_error(error) from None
        self.size += len(data)

    def sync(self) -> None:
        """Have all that was written on the disk. Raises SinkError."""
        if self.is_special:
            return
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:
            raise self.sink_error(error) from None

    def commit(self) -> None:
        """Put the file in its place. Raises SinkError."""
        try:
            self.sync()
            self.stream.close()
            if not self.is_special:
                os.replace(self.temp_path, self.final_path)
                sync_folder(os.path.dirname(self.final_path))
        except OSError as error:
            self.discard()
            raise self.sink_error(error) from None
        except SinkError:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave the target as it was."""
        with suppress(OSError):  # a buffer that failed to be written fails again at the flush
            self.stream.close()
        if not self.is_special and not self._keeps_unfinished:
            with suppress(OSError):  # a disk that has become read-only keeps it
                os.unlink(self.temp_path)

    def abandon(self) -> None:
        """End a write that blocks. May be called from any thread."""

    def sink_error(self, error: OSError) -> SinkError:
        """Return an error as a SinkError that names the file and the reason."""
        return SinkError(f"cannot write {self.path}: {error.strerror or error}", self.path)


def sync_folder(folder: str) -> None:
    """Write the names of a folder's files to the disk, where possible. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # to list the folder, which writing into it does not take
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which says that this file system has no need of it
            raise
    finally:
        os.close(descriptor)


def is_being_written(path: str) -> bool:
    """Whether a process still writes the unfinished file at `path`."""
    try:
        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
