"""Frames: rows with the name of their partition, from the workers to the stage."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The field of a row that names its partition, on the way from a worker to a sink of columns. It is
# no name that a record has.
PARTITION = "\0asyncbatch.partition"

# A frame: the lengths of a partition's name and of its rows, in bytes; then both.
FRAME_HEADER = struct.Struct("<HQ")


def make_frame(name: str, rows: bytes) -> bytes:
    """Return rows of one partition as a frame."""
    encoded = os.fsencode(name)
    return b"".join((FRAME_HEADER.pack(len(encoded), len(rows)), encoded, rows))


def read_frames(data: bytes | bytearray) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each frame, and where its rows begin and end."""
    end = 0
    while end < len(data):
        name_size, size = FRAME_HEADER.unpack_from(data, end)
        name_at = end + FRAME_HEADER.size
        start = name_at + name_size
        end = start + size
        yield os.fsdecode(bytes(data[name_at:start])), start, end
