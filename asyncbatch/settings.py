"""How files are read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Format = Literal["auto", "json", "jsonl"]


class FileWorkSettings(Struct, frozen=True):
    """How files are read: their format, size limit in bytes, and reads in flight (None adapts)."""

    format: Format = "auto"
    max_file_size: int | None = None
    read_ahead: int | None = None
