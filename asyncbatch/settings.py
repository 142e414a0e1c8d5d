"""How files are read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.cloud.settings import StoreSettings
from asyncbatch.retrying import Retries

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


class Portion(Struct, frozen=True):
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
    portion: Portion = Portion()


class DaskSettings(Struct, frozen=True):
    """A Dask cluster that works: the address of its scheduler, or None to start one here."""

    scheduler: str | None = None
