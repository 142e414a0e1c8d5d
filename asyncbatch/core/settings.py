"""Resource limits and connection settings."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.core.retry import Retries
from asyncbatch.errors import UsageError


class StoreSettings(Struct, frozen=True):
    """The settings of connections to object stores."""

    endpoint: str | None = None  # the URL of a server in place of the provider's own
    # send no credentials; otherwise each process finds them itself (storage/credentials)
    anonymous: bool = False
    retries: Retries = Retries(5, 0.2)  # after transient errors, for instance 500 and SlowDown
    timeout: float = 60.0  # seconds without a byte from the server
    # origins that the URL of a web server may redirect to, besides its own
    allow_origins: tuple[str, ...] = ()

    @classmethod
    def from_options(
        cls,
        endpoint: str | None,
        retries: Retries | None = None,
        *,
        anonymous: bool = False,
        allow_origins: tuple[str, ...] = (),
    ) -> StoreSettings:
        """Return the user's settings, with at least the default number of retries.

        Raises UsageError if the endpoint is invalid.
        """
        default = cls().retries
        wanted = default if retries is None else retries
        settings = cls(
            endpoint,
            anonymous,
            max(wanted, default, key=lambda one: one.count),
            allow_origins=allow_origins,
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UsageError if the endpoint is invalid."""
        if self.endpoint is not None:
            scheme, colon, host = self.endpoint.partition("://")
            if not colon or scheme not in ("http", "https") or not host:
                raise UsageError("--endpoint: write http://HOST:PORT or https://HOST")
            if "@" in host:
                raise UsageError("--endpoint: the URL cannot contain credentials")


# auto: by the file's name. concat: values that follow each other; seq: RFC 7464.
Format = Literal["auto", "json", "jsonl", "concat", "seq"]


EVENT_TYPES = ("login", "logout", "purchase", "view")  # of simulated events, by default

MIB = 1024 * 1024
MAX_BATCH_SECONDS = 0.5  # default time after which a worker returns the rest of a batch
MAX_UNPACKED_BYTES = (
    100 * 1024 * MIB
)  # far above any real export, but it stops a decompression bomb


class Sizes(Struct, frozen=True):
    """Memory limits, in bytes. Tests use smaller limits.

    A file larger than `split_threshold` is processed in splits of about `split` bytes, or streamed,
    if it contains lines or an array.
    """

    split_threshold: int = 32 * MIB
    split: int = 4 * MIB
    record: int = 128 * MIB  # the largest record of a split or streamed file
    window: int = 128 * MIB  # of a compressed file; the limit of the zstd command without --long
    document: int = 1024 * MIB  # the largest document that is held in memory as a whole
    part: int = 2 * MIB  # input after which a worker returns its rows
    held: int = 48 * MIB  # rows that the main process holds until earlier rows arrive
    waiting: int = 16 * MIB  # rows that the main process holds until the target has loaded them


class WorkLimit(Struct, frozen=True):
    """The limit of one turn of a worker, after which it returns the rest of the batch."""

    bytes: int | None = None
    seconds: float = MAX_BATCH_SECONDS


class FileWorkSettings(Struct, frozen=True):
    """The settings for reading files."""

    format: Format = "auto"
    max_file_size: int | None = None  # bytes
    read_ahead: int | None = None  # reads in flight; None adapts to the storage
    max_unpacked: int = MAX_UNPACKED_BYTES  # the largest decompressed size of a file, in bytes
    max_window: int | None = None  # bytes of a compressed file's window; None: that of `sizes`
    sizes: Sizes = Sizes()
    # for transient errors of opening, of reading, and of the user's function
    retries: Retries = Retries()
    # the connection to object stores, for inputs and targets
    stores: StoreSettings = StoreSettings()
    portion: WorkLimit = WorkLimit()


# The statistics of values. full: all of them; formats: formats and counts; types: only counts.
Detail = Literal["full", "formats", "types"]


class ProfileSettings(Struct, frozen=True):
    """The settings of a profile of records."""

    max_fields: int = 5000  # beyond, objects with many fields become maps
    detail: Detail = "full"


class DaskSettings(Struct, frozen=True):
    """The settings of a Dask cluster that processes the batches."""

    scheduler: str | None = None


class ServerSettings(Struct, frozen=True):
    """The settings of a database server that its address does not contain."""

    min_connections: int = 0  # connections kept open
    max_connections: int = 2  # the largest number of connections: one loads while the other queries
    statement_timeout: float | None = None  # seconds; None: that of the address, else ten minutes
    # the application name of the sessions; None: that of the address, else asyncbatch
    name: str | None = None


class WatchSettings(Struct, frozen=True):
    """The wait of a run for more files in its folders, and the place of the finished ones."""

    settle: float = 1.0  # seconds without a change after which a file is complete
    marker: str | None = (
        None  # the ending of the name of a file beside it, which tells that it is complete
    )
    poll: float | None = None  # seconds between two scans; None: the system notifies
    move_done: str | None = None  # the folder for files whose records were all taken
    move_failed: str | None = None  # the folder for other files
    delete_done: bool = False  # delete files whose records were all taken


class LedgerSettings(Struct, frozen=True):
    """The job that a ledger belongs to, and how the run uses the ledger."""

    fingerprint: str  # identifies the job
    description: str  # describes the job in messages
    path: str  # the ledger file of a target that holds no ledger itself
    is_required: bool = False  # whether the run fails without a ledger
    resume: bool = False  # skip inputs that are done
    retry_failed: bool = False  # skip inputs that did not fail
    force: bool = False  # do all inputs again
    allow_duplicates: bool = False  # rows may be added twice
    by_content: bool = False  # compare files by their content
    root: str | None = None  # identities are relative to this folder
    stores: StoreSettings = StoreSettings()  # the connection to the object stores that hold inputs
    replay: str | None = None  # the dead letter file that is an input; its content identifies it

    @property
    def is_resuming(self) -> bool:
        """Whether the run continues where an earlier one ended."""
        return self.resume or self.retry_failed
