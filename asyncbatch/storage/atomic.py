"""A file that appears whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from contextlib import suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from asyncbatch.errors import SinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

# Written bytes after which the kernel is asked to write them to the disk. So the disk works during
# a run, and not only at its end, where a sync of all bytes took a tenth of the time.
_WRITE_BACK_BYTES = 8 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE = 2  # from linux/fs.h: start to write, and do not wait

# The modes of new files, which the user's umask restricts further.
PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o666


def make_private_folders(path: str) -> None:
    """Create a folder and those above it, for their owner only. Raises OSError."""
    above = os.path.dirname(path)
    if above and not os.path.isdir(above):
        make_private_folders(above)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def write_reason(path: str, error: OSError) -> str:
    """Return why the file at `path` cannot be made. No such file: its folder is missing."""
    folder = os.path.dirname(path)
    if error.errno == errno.ENOENT and folder and not os.path.isdir(folder):
        return f"there is no folder {folder}"
    return error.strerror or str(error)


class AtomicFile:
    """A file that is written beside its target and renamed over it when it is complete.

    Call `open` first, then `commit` or `discard`; `stream` exists between them. A device is written
    directly. `is_private`: only the owner may read it, because it holds data of others.
    """

    stream: IO[bytes]

    def __init__(self, path: str, *, is_private: bool = False) -> None:
        self.path = path
        self._mode = PRIVATE_MODE if is_private else PUBLIC_MODE
        self.is_special: bool = os.path.exists(path) and not os.path.isfile(path)
        # A symbolic link stays: the file that it points to is replaced.
        self.final_path: str = os.path.realpath(path)
        # The path that is written to.
        self.temp_path: str = path if self.is_special else f"{self.final_path}.{os.getpid()}.tmp"
        self.size: int = 0  # bytes written by `write`
        self._keeps_unfinished = False
        self._written_back = 0  # of `size`: the bytes that the kernel was asked to write

    def keep_unfinished(self, temp_path: str) -> None:
        """Write to `temp_path`, and keep that file if it is not completed.

        Call it before `open`. The file is locked while it is written.
        """
        self.temp_path, self._keeps_unfinished = temp_path, True

    def remove_unfinished(self) -> None:
        """Let `discard` remove the unfinished file after all."""
        self._keeps_unfinished = False

    def open(self) -> None:
        """Create the file. Raises UsageError if it cannot be written."""
        if os.path.isdir(self.path):
            raise UsageError(f"cannot write {self.path}: it is a folder")
        try:
            if not self.is_special and not self._keeps_unfinished:
                _remove_leftovers(self.final_path)
            self.stream = open(self.temp_path, "wb", opener=self._create)  # noqa: SIM115 - closed at the end of the run
            if self._keeps_unfinished:
                fcntl.flock(self.stream, fcntl.LOCK_EX)
            elif not self.is_special:
                with suppress(OSError):  # a file system without locks: see `_remove_leftovers`
                    fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = write_reason(self.path, error)
            raise UsageError(f"cannot write {self.path}: {reason}") from None

    def _create(self, path: str, flags: int) -> int:
        return os.open(path, flags, self._mode)

    def write(self, data: bytes | bytearray) -> None:
        """Write to the operating system, unbuffered. Raises SinkError."""
        # Not through the stream: after a full disk its buffer keeps the rest, and a sync fails.
        left, descriptor = memoryview(data), self.stream.fileno()
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            with suppress(OSError):  # a pipe has no length
                os.ftruncate(descriptor, self.size)  # so that no incomplete line stays
            raise self.sink_error(error) from None
        self.size += len(data)
        if (count := self.size - self._written_back) >= _WRITE_BACK_BYTES:
            # An error does not matter: a pipe or a device has no range, and the sync at the end
            # raises an error of the disk.
            _sync_file_range()(descriptor, self._written_back, count, _SYNC_FILE_RANGE_WRITE)
            self._written_back = self.size

    def sync(self) -> None:
        """Sync all written data to the disk. Raises SinkError."""
        if self.is_special:
            return
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:
            raise self.sink_error(error) from None

    def publish(self) -> None:
        """Rename the file over its target before it is complete; later writes add to it there.

        Raises SinkError.
        """
        if self.is_special or self.temp_path == self.final_path:
            return
        try:
            os.replace(self.temp_path, self.final_path)
        except OSError as error:
            raise self.sink_error(error) from None
        self.temp_path = self.final_path

    def commit(self) -> None:
        """Rename the complete file over its target. Raises SinkError."""
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
        """Leave the target as it was, and remove the temporary file."""
        with suppress(OSError):  # a buffer that could not be written fails again when it is flushed
            self.stream.close()
        is_published = self.temp_path == self.final_path
        if not (self.is_special or self._keeps_unfinished or is_published):
            with suppress(OSError):  # a disk that has become read-only keeps the file
                os.unlink(self.temp_path)

    def abandon(self) -> None:
        """End a write that blocks. Safe to call from any thread. Does nothing for files."""

    def sink_error(self, error: OSError) -> SinkError:
        """Return a SinkError that names the file and the reason."""
        return SinkError(f"cannot write {self.path}: {error.strerror or error}", self.path)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], Any]:
    """Return the function of the C library, or one that does nothing where there is none."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda descriptor, at, count, flags: None  # noqa: ARG005 - as the C library's
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function  # type: ignore[no-any-return]  # a function of C has no type


def sync_folder(folder: str) -> None:
    """Sync the directory entries of `folder` to the disk, if possible. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # no permission to list the folder; writing into it does not need that
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: this file system does not sync folders
            raise
    finally:
        os.close(descriptor)


def sync_file_system(folder: str) -> None:
    """Write the file system of a folder to the disk. Raises SinkError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # nothing was written yet
        return
    except OSError as error:
        raise SinkError(f"cannot write {folder}: {error.strerror}", folder) from None
    import ctypes

    try:
        # syncfs is one call for thousands of files; not every system has it.
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            reason = os.strerror(ctypes.get_errno())
            raise SinkError(f"cannot write {folder}: {reason}", folder)
    finally:
        os.close(descriptor)


def _remove_leftovers(path: str) -> None:
    """Remove the temporary files for `path` of processes that were killed.

    One that is in use has a live process here, or is locked by a process of another container.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.tmp")
    with suppress(OSError), os.scandir(folder or os.curdir) as entries:
        for entry in entries:
            if (found := pattern.fullmatch(entry.name)) and not is_alive(int(found[1])):
                with suppress(OSError), open(entry.path, "rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def is_alive(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def is_being_written(path: str) -> bool:
    """Whether a process holds the lock of the unfinished file at `path`."""
    try:
        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
