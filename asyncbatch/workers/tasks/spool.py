"""A spool of values until their record is complete: in memory, or on the disk."""

from __future__ import annotations

from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Self

from asyncbatch.formats.decoder import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncbatch.core.records import Json

# The outputs of a record are spooled from this number on, until all are computed.
SPOOLED_OUTPUTS = 1000
MEMORY_BYTES = 8 * 1024 * 1024  # bytes in memory; beyond, a temporary file


class Spool:
    """JSON values, written once and read once. A context manager, which removes its file."""

    def __init__(self) -> None:
        import tempfile

        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by `close`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file, if there is one."""
        self._file.close()

    def write(self, values: Iterable[Json]) -> None:
        """Add values. Raises OSError, and the errors of `values`."""
        self._file.writelines(encode(value) + b"\n" for value in values)

    def read(self, most: int) -> Iterator[list[Any]]:
        """Yield the values, at most `most` at a time."""
        self._file.seek(0)
        while some := [decode(line) for line in islice(self._file, most)]:
            yield some
