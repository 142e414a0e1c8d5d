"""Resource limits and connection settings."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.core.retry import Retries
from asyncbatch.errors import UsageError


class StoreSettings(Struct, frozen=True):
    """How stores are reached.

    `endpoint` is the URL of a server in place of the provider's own; `anonymous` asks without
    credentials, which otherwise each process finds by itself (see `cloud.credentials`). `retries`
    are of what a store answers for the moment, such as 500 and SlowDown. `timeout` is in seconds,
    without a byte coming.
    """

    endpoint: str | None = None
    anonymous: bool = False
    retries: Retries = Retries(5, 0.2)
    timeout: float = 60.0

    @classmethod
    def of(
        cls, endpoint: str | None, retries: Retries | None = None, *, anonymous: bool = False
    ) -> StoreSettings:
        """Return what the user asks for; never fewer retries than by default. Raises UsageError."""
        least = cls().retries
        asked = least if retries is None else retries
        settings = cls(endpoint, anonymous, max(asked, least, key=lambda one: one.count))
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UsageError if this cannot be meant."""
        if self.endpoint is not None:
            scheme, colon, host = self.endpoint.partition("://")
            if not colon or scheme not in ("http", "https") or not host:
                raise UsageError("--endpoint: write http://HOST:PORT or https://HOST")
            if "@" in host:
                raise UsageError("--endpoint: credentials have no place in it")


Format = Literal["auto", "json", "jsonl"]


MIB = 1024 * 1024
MAX_BATCH_SECONDS = 0.5
"""After so long the rest of a batch is given back, unless told otherwise."""
MAX_UNPACKED = 100 * 1024 * MIB
"""What a compressed file may unpack to: far beyond any export, and yet an end to a bomb."""


class Sizes(Struct, frozen=True):
    """From which size on what is done otherwise, in bytes; smaller ones are for tests.

    A file over `huge` is worked on in pieces of about `piece`, or streamed, if its records can
    be told apart: lines, or the elements of an array. One of its records may have `record`
    bytes. A document that is one record, or whose records cannot be told apart, may have
    `document` bytes, for it is held in memory.

    A worker hands on rows after `part` bytes of records; the main process holds back `held`
    bytes of rows that came before their turn, and `waiting` bytes until they are loaded.
    """

    huge: int = 32 * MIB
    piece: int = 4 * MIB
    record: int = 128 * MIB
    document: int = 1024 * MIB
    part: int = 2 * MIB
    held: int = 48 * MIB
    waiting: int = 16 * MIB


class WorkLimit(Struct, frozen=True):
    """How much of a batch is worked on at a time: after so much the rest is given back.

    `bytes` read, as suits the work unless it is given, or `seconds`, whichever comes first.
    """

    bytes: int | None = None
    seconds: float = MAX_BATCH_SECONDS


class FileWorkSettings(Struct, frozen=True):
    """How files are read: their format, size limit in bytes, and reads in flight (None adapts).

    A compressed file may unpack to `max_unpacked` bytes. `retries` are of what fails for the
    moment: opening, a read, a call of the user's function. `stores` is how object stores are
    reached, for inputs and for targets.
    """

    format: Format = "auto"
    max_file_size: int | None = None
    read_ahead: int | None = None
    max_unpacked: int = MAX_UNPACKED
    sizes: Sizes = Sizes()
    retries: Retries = Retries()
    stores: StoreSettings = StoreSettings()
    portion: WorkLimit = WorkLimit()


class DaskSettings(Struct, frozen=True):
    """A Dask cluster that works: the address of its scheduler, or None to start one here."""

    scheduler: str | None = None


class ServerSettings(Struct, frozen=True):
    """What is asked of a server beyond its address.

    `least` connections are kept open, and there are never more than `most`: one loads, another
    one asks meanwhile. A statement is given up after `statement_timeout` seconds, without it as
    the address says, or after ten minutes. `name` is what the server calls the sessions unless
    the address says otherwise; without both, asyncbatch.
    """

    least: int = 0
    most: int = 2
    statement_timeout: float | None = None
    name: str | None = None


class LedgerSettings(Struct, frozen=True):
    """Of which job entries are kept, where, and what they mean for this run.

    `fingerprint` tells the job from others (see `fingerprint`), `description` shows it to
    people. `path` is the file for targets that hold no ledger themselves; `is_asked` if the run
    cannot do without. With `resume`, inputs that are done are skipped; with `retry_failed`, all
    that have not failed; `force` does all again. `allow_duplicates` lets rows be added twice.
    `by_content` tells files' states by what is in them. Identities are relative to `root`;
    those of objects are in `stores`.
    """

    fingerprint: str
    description: str
    path: str
    is_asked: bool = False
    resume: bool = False
    retry_failed: bool = False
    force: bool = False
    allow_duplicates: bool = False
    by_content: bool = False
    root: str | None = None
    stores: StoreSettings = StoreSettings()

    @property
    def carries_on(self) -> bool:
        """Whether the run goes on where an earlier one ended."""
        return self.resume or self.retry_failed
