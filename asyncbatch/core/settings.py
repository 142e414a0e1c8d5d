"""Resource limits and connection settings."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.core.retry import Retries
from asyncbatch.errors import UsageError


class StoreSettings(Struct, frozen=True):
    """The connection to object stores."""

    endpoint: str | None = None  # the URL of a server in place of the provider's own
    # sends no credentials; else each process finds them itself (storage/credentials)
    anonymous: bool = False
    retries: Retries = Retries(5, 0.2)  # for transient answers, for instance 500 and SlowDown
    timeout: float = 60.0  # seconds without a byte

    @classmethod
    def from_options(
        cls, endpoint: str | None, retries: Retries | None = None, *, anonymous: bool = False
    ) -> StoreSettings:
        """Return the settings of the user, with no fewer retries than the default.

        Raises UsageError.
        """
        least = cls().retries
        asked = least if retries is None else retries
        settings = cls(endpoint, anonymous, max(asked, least, key=lambda one: one.count))
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UsageError if the endpoint is invalid."""
        if self.endpoint is not None:
            scheme, colon, host = self.endpoint.partition("://")
            if not colon or scheme not in ("http", "https") or not host:
                raise UsageError("--endpoint: write http://HOST:PORT or https://HOST")
            if "@" in host:
                raise UsageError("--endpoint: credentials have no place in it")


Format = Literal["auto", "json", "jsonl"]


MIB = 1024 * 1024
MAX_BATCH_SECONDS = 0.5  # By default a worker returns the rest of a batch after this time.
MAX_UNPACKED_BYTES = (
    100 * 1024 * MIB
)  # Far above any export, and still a limit for a decompression bomb.


class Sizes(Struct, frozen=True):
    """Memory limits, in bytes. Tests use smaller ones.

    A file over `split_threshold` is processed in splits of about `split`, or streamed, if it has
    lines or the elements of an array.
    """

    split_threshold: int = 32 * MIB
    split: int = 4 * MIB
    record: int = 128 * MIB  # the largest record of a split or streamed file
    document: int = 1024 * MIB  # the largest document that is held in memory as a whole
    part: int = 2 * MIB  # a worker hands on its rows after this much input
    held: int = 48 * MIB  # rows that the main process holds until their turn
    waiting: int = 16 * MIB  # rows that the main process holds until they are loaded


class WorkLimit(Struct, frozen=True):
    """The limit of one turn of a worker, after which it returns the rest of the batch.

    `bytes` are bytes read, None for the default of the task. The first limit reached counts.
    """

    bytes: int | None = None
    seconds: float = MAX_BATCH_SECONDS


class FileWorkSettings(Struct, frozen=True):
    """How files are read."""

    format: Format = "auto"
    max_file_size: int | None = None  # bytes
    read_ahead: int | None = None  # reads in flight; None adapts to the storage
    max_unpacked: int = MAX_UNPACKED_BYTES  # bytes that a compressed file may unpack to
    sizes: Sizes = Sizes()
    # for transient errors of opening, of reading, and of the user's function
    retries: Retries = Retries()
    # the connection to object stores, for inputs and targets
    stores: StoreSettings = StoreSettings()
    portion: WorkLimit = WorkLimit()


class DaskSettings(Struct, frozen=True):
    """A Dask cluster as engine.

    `scheduler` is its address, None starts a cluster on this machine.
    """

    scheduler: str | None = None


class ServerSettings(Struct, frozen=True):
    """Settings of a database server beyond its address."""

    min_connections: int = 0  # connections kept open
    max_connections: int = 2  # largest number of connections: one loads, another one asks meanwhile
    statement_timeout: float | None = None  # seconds; None: that of the address, else ten minutes
    # the application name of the sessions; None: that of the address, else asyncbatch
    name: str | None = None


class LedgerSettings(Struct, frozen=True):
    """The job whose entries are kept, where they are, and how the run uses them."""

    fingerprint: str  # identifies the job
    description: str  # describes the job to people
    path: str  # the ledger file of a target that holds no ledger itself
    is_required: bool = False  # whether the run fails without a ledger
    resume: bool = False  # skip inputs that are done
    retry_failed: bool = False  # skip inputs that did not fail
    force: bool = False  # do all inputs again
    allow_duplicates: bool = False  # rows may be added twice
    by_content: bool = False  # compare files by their content
    root: str | None = None  # identities are relative to this folder
    stores: StoreSettings = StoreSettings()  # the connection to the object stores that hold inputs

    @property
    def is_resuming(self) -> bool:
        """Whether the run resumes where an earlier one ended."""
        return self.resume or self.retry_failed
