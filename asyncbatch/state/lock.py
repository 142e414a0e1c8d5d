"""Lock files: only one process at a time runs a job."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from asyncbatch.core.paths import is_object_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.errors import LockHeldError, UsageError
from asyncbatch.storage.atomic import PRIVATE_MODE, make_private_folders, write_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def state_folder() -> str:
    """Return `$XDG_STATE_HOME/asyncbatch`, by default in `~/.local/state`.

    The folder may not exist yet. A relative XDG_STATE_HOME is ignored, as the XDG specification
    requires. Raises UsageError without a home folder.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise UsageError("no folder for the state of asyncbatch: set XDG_STATE_HOME or HOME")
    return os.path.join(base, "asyncbatch")


_POLL_SECONDS = 0.05
_MOST_BYTES = 4096  # of a lock file that are read


class LockHolder(msgspec.Struct, tag_field="kind", tag="asyncbatch lock"):
    """The holder of a lock, as its file names it."""

    pid: int
    host: str
    since: str  # UTC, as 2026-01-31T12:00:00Z


class Lock:
    """A lock on the file at `path`. Messages name `option`, which asked for it.

    Acquire it only once. It is a flock on an open file that no child process inherits, so it ends
    with this process, even after a kill. The file stays and names its last holder.
    """

    path: str

    def __init__(self, path: str, option: str = "--lock") -> None:
        self.path, self._option = path, option
        self._descriptor: int | None = None

    def acquire(self, wait_s: float = 0.0) -> None:
        """Acquire the lock within `wait_s` seconds, until `release` or the process ends.

        Raises LockHeldError, and UsageError if the file cannot be used as a lock.
        """
        deadline = time.monotonic() + wait_s
        while not self._try():
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockHeldError(self._describe_held())
            time.sleep(min(_POLL_SECONDS, left))

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self) -> bool:
        """Acquire the lock if it is free, and write the holder into the file."""
        try:
            # Non-blocking: the open of a named pipe would block before it is recognised.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, PRIVATE_MODE)
            try:
                acquired = self._lock(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            reason = write_reason(self.path, error)
            raise UsageError(f"{self._option} {display_path(self.path)}: {reason}") from None
        if acquired:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return acquired

    def _lock(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{self._option} {display_path(self.path)} is not a regular file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            current = os.stat(self.path)
        except FileNotFoundError:
            return False
        if not os.path.samestat(current, status):  # another process has replaced the file
            return False
        content = os.pread(descriptor, _MOST_BYTES, 0)
        if content and _holder(content) is None:
            raise UsageError(
                f"{self._option} {display_path(self.path)} is not a lock file but has content: "
                "name another file (to pass it as an input, write --lock=auto before it)"
            )
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = msgspec.json.encode(LockHolder(os.getpid(), socket.gethostname(), since)) + b"\n"
        os.pwrite(descriptor, line, 0)
        os.ftruncate(descriptor, len(line))
        return True

    def _describe_held(self) -> str:
        try:
            with open(self.path, "rb") as stream:
                holder = _holder(stream.read(_MOST_BYTES))
        except OSError:
            holder = None
        held = f"the lock {display_path(self.path)} is held by "
        if holder is None:  # the holder has not written its name yet
            return held + "another process"
        where = "" if holder.host == socket.gethostname() else f" on {holder.host}"
        return f"{held}process {holder.pid}{where} since {holder.since}"


def _holder(content: bytes) -> LockHolder | None:
    """Return the holder in the first line of a lock file; later lines may be stale."""
    try:
        return msgspec.json.decode(content.partition(b"\n")[0], type=LockHolder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def default_lock(key: str) -> Lock:
    """Return the lock of a job by its key, in the state folder. Raises UsageError."""
    folder = os.path.join(state_folder(), "locks")
    try:
        make_private_folders(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"--lock: cannot create {display_path(folder)}: {reason}; name a file with --lock=FILE"
        ) from None
    return Lock(os.path.join(folder, f"{key}.lock"))


def job_key(inputs: Iterable[str], target: str | None, options: Mapping[str, object]) -> str:
    """Return the identity of a job on this machine as a short hash.

    `inputs` and `target` are as the user wrote them; their absolute paths count. `options` are the
    other settings that distinguish jobs.
    """
    paths = sorted({path if path == STDIN else _absolute_path(path) for path in inputs})
    text = ascii((paths, None if target is None else _absolute(target), sorted(options.items())))
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _absolute_path(path: str) -> str:
    return path if is_object_url(path) else os.path.abspath(path)


def _absolute(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if not separator:
        return target if target == STDIN else os.path.abspath(target)
    if not rest.startswith("/"):  # a database server: not a path
        return target
    return f"{scheme}:///{os.path.abspath(rest[1:])}"
