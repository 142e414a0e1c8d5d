"""Frames: rows with the name of their partition, from the workers to the stage."""

from __future__ import annotations

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
    encoded = name.encode()
    return b"".join((FRAME_HEADER.pack(len(encoded), len(rows)), encoded, rows))


def read_frames(data: bytes | bytearray) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the rows of each frame."""
    view, at = memoryview(data), 0
    while at < len(view):
        name_size, size = FRAME_HEADER.unpack_from(view, at)
        start = at + FRAME_HEADER.size + name_size
        name = str(view[at + FRAME_HEADER.size : start], "utf-8")
        at = start + size
        yield name, view[start:at]
