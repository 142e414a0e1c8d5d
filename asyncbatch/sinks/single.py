"""What single files have in common as targets: a place in them, and rows of an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.entries import Extent
from asyncbatch.errors import SinkError
from asyncbatch.sinks.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.entries import Entry

_CHUNK = 1024 * 1024


class FileSink:
    """The part of a sink for one file that is the same whatever is in the file."""

    goes_back = False
    """Whether what is written is also read, or written again from the beginning."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        self.file = whole_file(path, stores, at_random=self.goes_back)

    @property
    def position(self) -> int:
        """Where the next row will be, in the units of an `Extent`."""
        return self.file.size

    @property
    def row_sizes(self) -> list[int]:
        """Of each row of the last load that was not refused, how many units it takes."""
        return []

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: the file is complete at the end or not there."""

    def keep(self, path: str, extent: Extent) -> Extent:
        """Write rows again that an earlier such file at `path` has; return where they are now.

        Raises SinkError.
        """
        at = self.position
        for chunk in read_extent(path, extent):
            self.file.write(chunk)
        return Extent(at, extent.length, 0, extent.take)

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - a file ends as it is
        """Put the file in place if all input was taken. Raises SinkError."""
        if ended:
            self.complete()
        else:
            self.file.discard()
        return ended

    def complete(self) -> None:
        """Put the file in place. Raises SinkError."""
        self.file.commit()

    def give_up(self) -> None:
        """Have a write that waits for somebody wait no longer; from any thread."""
        self.file.give_up()


def read_extent(path: str, extent: Extent) -> Iterator[bytes]:
    """Yield the bytes of an extent, in pieces. Raises SinkError if they are not there."""
    left = extent.length
    try:
        with open(path, "rb") as stream:
            stream.seek(extent.at)
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise SinkError(f"{path} is shorter than it was: run without --resume", path)
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise SinkError(f"cannot read {path} again: {error.strerror}", path) from None
