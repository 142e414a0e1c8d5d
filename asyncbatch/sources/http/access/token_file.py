"""The file of a refresh token, which a server may replace. Does not import aiohttp."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from asyncbatch.core.aio import run_in_thread
from asyncbatch.core.units import format_seconds, format_size, printable
from asyncbatch.errors import SinkError, UsageError, error_reason
from asyncbatch.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

_MAX_BYTES = 64 * 1024  # of the file; the longest tokens that are known have 8 KB
_RESERVED_BYTES = 8 * 1024  # of the disk, for the next token
_POLL_SECONDS = 0.05
# A holder waits for one answer of the server, 30 s by default. Others may be before us.
_MOST_WAIT = 120.0  # seconds
_MOUNTS = "/proc/self/mountinfo"  # of Linux


class TokenFileError(Exception):
    """A file cannot be used for a refresh token. The message says why, without the token.

    `is_held`: another run holds it, so a retry makes sense.
    """

    def __init__(self, message: str, *, is_held: bool = False) -> None:
        super().__init__(message)
        self.is_held = is_held


class TokenFile:
    """The file at `path`, which holds a refresh token alone. A symbolic link's target counts.

    The lock is a flock on the file itself, so it leaves nothing behind and ends with its process.
    The next token comes in a new file, so a lock counts only on the file that has the name.
    """

    def __init__(self, path: str) -> None:
        self.shown: str = printable(path)
        self.path: str = os.path.abspath(os.path.expanduser(path))

    def check(self) -> None:
        """Raise TokenFileError unless the file has a token and can be replaced. Changes nothing."""
        with self._opened() as (descriptor, path):
            self._read(descriptor)
            owner = os.fstat(descriptor).st_uid
        folder = os.path.dirname(path)
        self._check_folder(folder, owner)
        if _is_mounted(path):
            raise TokenFileError(
                f"{self.shown} is mounted by itself, so it cannot be replaced: mount its folder"
            )

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[HeldToken, None]:
        """Lock the file and yield its token, until the end. Raises TokenFileError."""
        end = time.monotonic() + _MOST_WAIT
        while (held := self._try_to_hold()) is None:
            if time.monotonic() >= end:
                waited = format_seconds(_MOST_WAIT)
                raise TokenFileError(
                    f"{self.shown} was locked for {waited}: does another run use it and hang?",
                    is_held=True,
                )
            await asyncio.sleep(_POLL_SECONDS)
        try:
            yield held
        finally:
            held.release()

    def _try_to_hold(self) -> HeldToken | None:
        """Return the locked token, None if another holder has it. Raises TokenFileError."""
        with self._opened() as (descriptor, path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError as error:
                raise TokenFileError(
                    f"{self.shown} cannot be locked ({error.strerror}): move it to a disk of "
                    "this machine"
                ) from None
            status = os.fstat(descriptor)
            try:
                if not os.path.samestat(os.stat(path), status):  # a holder has replaced it
                    return None
            except FileNotFoundError:
                return None
            token = self._read(descriptor)
            return HeldToken(token, os.dup(descriptor), path, self.shown)

    @contextmanager
    def _opened(self) -> Iterator[tuple[int, str]]:
        """Open the file. Yield its descriptor and its path behind links. Raises TokenFileError."""
        path = os.path.realpath(self.path)
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            raise TokenFileError(
                f"there is no file {self.shown}: write the first refresh token into it"
            ) from None
        except PermissionError:
            raise TokenFileError(
                f"user {os.geteuid()} may not read {self.shown}: change its rights"
            ) from None
        except OSError as error:
            raise TokenFileError(f"{self.shown} cannot be read: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise TokenFileError(f"{self.shown} is not a regular file: name a file")
            yield descriptor, path
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> str:
        """Return the token in an open file. Raises TokenFileError."""
        try:
            data = os.pread(descriptor, _MAX_BYTES + 1, 0)
        except OSError as error:
            raise TokenFileError(f"{self.shown} cannot be read: {error.strerror}") from None
        advice = "write the refresh token into it, and nothing else"
        if len(data) > _MAX_BYTES:
            raise TokenFileError(f"{self.shown} has more than {format_size(_MAX_BYTES)}: {advice}")
        try:
            token = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise TokenFileError(f"{self.shown} is not UTF-8: {advice}") from None
        if not token:
            raise TokenFileError(f"{self.shown} is empty: {advice}")
        if len(token.splitlines()) > 1:
            raise TokenFileError(f"{self.shown} has several lines: {advice}")
        if not token.isprintable():
            raise TokenFileError(f"{self.shown} has control characters: {advice}")
        return token

    def _check_folder(self, folder: str, owner: int) -> None:
        """Raise TokenFileError unless files of `owner` in the folder can be replaced."""
        from tempfile import TemporaryFile

        try:
            with TemporaryFile(dir=folder):
                status = os.stat(folder)
        except OSError as error:
            raise self._folder_error(error.strerror or str(error)) from None
        may_replace = os.geteuid() in (0, owner, status.st_uid)
        if status.st_mode & stat.S_ISVTX and not may_replace:
            raise self._folder_error("there only owners replace their files")

    def _folder_error(self, reason: str) -> TokenFileError:
        return TokenFileError(
            f"the folder of {self.shown} cannot be written, and the server may replace the token: "
            f"change its rights, or move the file ({reason})"
        )


class HeldToken:
    """A refresh token, whose file is locked until `release`.

    Call `prepare` before the token is used, so that a failure to write is found while the server
    still takes it, then `replace` if the server gives another one.
    """

    def __init__(self, token: str, descriptor: int, path: str, shown: str) -> None:
        self.token = token
        self._descriptor, self._shown = descriptor, shown
        self._next = AtomicFile(path, is_private=True)
        self._is_open = False

    async def prepare(self) -> None:
        """Make the file of the next token, with room for it. Raises TokenFileError."""
        try:
            await run_in_thread(self._prepare)
        except (OSError, UsageError) as error:
            reason = printable(error_reason(error))
            raise TokenFileError(
                f"{self._shown} is not used, because the next token could not be written beside it "
                f"({reason}): make room there, or change the rights of the folder"
            ) from None

    async def replace(self, token: str) -> None:
        """Write the next token in place of this one, whole or not at all.

        Raises TokenFileError. The file then has the old token.
        """
        data = f"{token}\n".encode("utf-8", "surrogatepass")
        if not token.isprintable() or token.strip() != token or len(data) > _MAX_BYTES:
            raise TokenFileError(
                f"{self._shown} keeps the old refresh token, because the new one of the server is "
                f"no line of at most {format_size(_MAX_BYTES)}: use client credentials"
            )
        try:
            await run_in_thread(lambda: self._replace(data))
        except (OSError, SinkError) as error:
            reason = printable(error_reason(error))
            raise TokenFileError(
                f"{self._shown} keeps the old refresh token, because the new one could not be "
                f"written ({reason}): if the server refuses the old one, write another one into it"
            ) from None

    def release(self) -> None:
        """Release the lock, and remove the file of a next token that has not come."""
        if self._is_open:
            self._next.discard()
            self._is_open = False
        os.close(self._descriptor)

    def _prepare(self) -> None:
        self._next.open()
        self._is_open = True
        descriptor = self._next.stream.fileno()
        _take_rights(descriptor, os.fstat(self._descriptor))
        _overwrite(descriptor, bytes(_RESERVED_BYTES))
        os.fsync(descriptor)

    def _replace(self, data: bytes) -> None:
        _overwrite(self._next.stream.fileno(), data)
        self._is_open = False  # it is committed, or discarded
        self._next.commit()


def _open(path: str) -> int:
    """Open a file, for writing if that is allowed: NFS has no other exclusive locks."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK  # the open of a named pipe would block
    with suppress(OSError):
        return os.open(path, os.O_RDWR | flags)
    return os.open(path, os.O_RDONLY | flags)


def _overwrite(descriptor: int, data: bytes) -> None:
    """Write over a file in place: its blocks stay, so a full disk does not matter."""
    at = 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], at)
    os.ftruncate(descriptor, len(data))


def _take_rights(descriptor: int, status: os.stat_result) -> None:
    """Give a new file the owner, the group and the mode of another one, as far as it is allowed."""
    mode = stat.S_IMODE(status.st_mode) & 0o777
    with suppress(OSError):
        os.fchown(descriptor, -1, status.st_gid)
    with suppress(OSError):  # only root may
        os.fchown(descriptor, status.st_uid, -1)
    if os.fstat(descriptor).st_gid != status.st_gid:
        mode &= ~stat.S_IRWXG  # it is the right of another group
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, mode)


def _is_mounted(path: str) -> bool:
    """Whether a file is a mount point, as containers have it: no file can take its place."""
    written = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(path))
    try:
        with open(_MOUNTS, "rb") as mounts:
            return any(line.split(b" ")[4] == written for line in mounts)
    except (OSError, IndexError):  # another system
        return False
