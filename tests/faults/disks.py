"""Small disks of a test's own, which really get full, read-only, or lose what was not synced.

Each is mounted in a mount namespace of its own, so that nothing is left however a test ends, and
only commands behind its `prefix` see it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOOLS = ("unshare", "nsenter", "mount")
_END = "asyncbatch-tests-end"
# A prefix of a command: no file may exceed 32 KiB. To the command this is a full disk. It writes no
# bytecode, which the limit would cut off, for later tests.
LIMITED = ("sh", "-c", 'ulimit -f 64; export PYTHONDONTWRITEBYTECODE=1; exec "$@"', "sh")


class Disk:
    """A file system at `path`."""

    def __init__(self, path: Path) -> None:
        """Make the namespace, in which nothing is mounted at `path` yet; skip where none may be."""
        if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
            pytest.skip(f"no {', '.join(missing)} (util-linux)")
        self.path = path
        path.mkdir()
        self._is_root = os.geteuid() == 0
        options = () if self._is_root else ("--map-root-user",)
        self._shell = subprocess.Popen(
            ["unshare", "--mount", *options, "sh"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command, have it see the disk."""
        user = () if self._is_root else ("--user", "--preserve-credentials")
        enter = ("nsenter", f"--target={self._shell.pid}", "--mount", *user)
        # Entering changes the working directory.
        return (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.path.parent))

    def copy(self, name: str) -> Path:
        """Copy what is on the disk to a new folder beside it."""
        seen = f"/proc/{self._shell.pid}/root{self.path}"
        return Path(shutil.copytree(seen, self.path.parent / name))

    def do(self, command: str) -> None:
        """Have a command of the shell done in the namespace; skip if it may not be."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        try:
            self._shell.stdin.write(f"{command}\nstatus=$?; echo; echo {_END} $status\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            self._skip("no mount namespace", self._shell.stdout.read())
        said = []
        for line in self._shell.stdout:
            if line.startswith(_END):
                if line.split()[1] != "0":
                    break
                return
            said.append(line.strip())
        self._skip(command, " ".join(said))

    def _skip(self, what: str, why: str) -> NoReturn:
        self.close()
        pytest.skip(f"{what}: {why.strip()}")

    def close(self) -> None:
        """Take the disk away, with all that is on it."""
        assert self._shell.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and did not read all
            self._shell.stdin.close()
        assert self._shell.stdout is not None
        self._shell.stdout.close()
        self._shell.wait()


class MemoryDisk(Disk):
    """Of `size` bytes; can become larger, and read-only while nothing is open."""

    def __init__(self, path: Path, size: str) -> None:
        super().__init__(path)
        self.do(f"mount -t tmpfs -o mode=755,size={size} none '{path}'")

    def remount(self, options: str) -> None:
        """Change it: `size=...`, `ro`, `rw`."""
        self.do(f"mount -o remount,{options} '{self.path}'")


class FailingDisk(Disk):
    """Can fail while files are open, as a disk does whose driver gives up: read-only from then on.

    What was not synced is lost. Takes root, and a loop device.
    """

    def __init__(self, path: Path, size: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root mounts a disk that can fail")
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("no mkfs.ext4 (e2fsprogs)")
        super().__init__(path)
        self._image = path.with_suffix(".image")
        self.do(f"truncate -s {size} '{self._image}' && mkfs.ext4 -q -m 0 '{self._image}'")
        self._mount()

    def fail(self) -> None:
        """Take no more writes."""
        self.do(f"mount -o remount,abort '{self.path}'")

    def recover(self) -> None:
        """Be as after a reboot: what had reached the disk is there."""
        self.do(f"umount '{self.path}'")
        self._mount()

    def _mount(self) -> None:
        # Nothing is written to the disk on its own account but what is synced.
        self.do(f"mount -o loop,commit=300 '{self._image}' '{self.path}'")


@contextmanager
def mounted(disk: Disk) -> Iterator[Disk]:
    """Have a disk for a while."""
    try:
        yield disk
    finally:
        disk.close()


def unprivileged() -> tuple[str, ...]:
    """Return a prefix of a command, so that file permissions apply to it."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is needed to test this as root")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search")
