"""How files are read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.retrying import Retries

Format = Literal["auto", "json", "jsonl"]


class FileWorkSettings(Struct, frozen=True):
    """How files are read: their format, size limit in bytes, and reads in flight (None adapts).

    `retries` are of what fails for the moment: opening, a read, a call of the user's function.
    """

    format: Format = "auto"
    max_file_size: int | None = None
    read_ahead: int | None = None
    retries: Retries = Retries()
