"""The stage of a partitioned target: the rows of all partitions in one file, in frames.

Rows come in the order of the inputs, and go to any partition. A file for each would need thousands
of open files, and a killed run would leave thousands of beginnings. So all rows go to one file that
is only appended to, as those of any other file target, and a resumed run copies from it. When all
input was read, the partitions are written from it, one after another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from array import array
from typing import TYPE_CHECKING

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.partitions.frames import FRAME_HEADER, read_frames
from asyncbatch.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.ledger_entries import Extent

_STAGE = ".partitions"  # the name of the file
_COPY_BYTES = 1024 * 1024
# A field whose values are all different, such as an id, is most likely a mistake.
MAX_PARTITIONS = 100_000


class PartitionStage(AtomicFile):
    """A hidden file beside the partitions, which is removed when they are written.

    Call `open`, then `write` for frames. It knows where the rows of each partition are.
    """

    temp_path: str
    final_path: str

    def __init__(self, name: str, folder: str | None) -> None:
        """Return the stage of the target with this name, in a folder that `open` creates.

        None: in a folder of its own in the system's folder for temporary files.
        """
        super().__init__(os.path.join(folder or "", _STAGE))
        self.path = name  # for messages
        self._folder, self._is_spool = folder, folder is None
        # By partition: the offset and the length of its rows in each frame.
        self._frames: dict[str, array[int]] = {}
        self._descriptor = -1

    @property
    def names(self) -> list[str]:
        """The names of all partitions, in order."""
        return sorted(self._frames)

    def open(self) -> None:
        try:
            if self._is_spool:
                self._folder = tempfile.mkdtemp(prefix="asyncbatch-")
                self.temp_path = self.final_path = os.path.join(self._folder, _STAGE)
            elif self._folder:
                os.makedirs(self._folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}") from None
        super().open()

    def add(self, frames: bytes | bytearray) -> None:
        """Append frames. Raises SinkError."""
        for name, start, end in read_frames(frames):
            self._note(name, self.size + start, end - start)
        self.write(frames)

    def copy(self, path: str, extent: Extent) -> None:
        """Append the frames of an extent of an earlier stage. Raises SinkError."""
        at, end = extent.at, extent.at + extent.length
        try:
            with open(path, "rb") as earlier:
                while at < end:
                    earlier.seek(at)
                    header = earlier.read(FRAME_HEADER.size)
                    name_size, size = FRAME_HEADER.unpack(header)
                    name = earlier.read(name_size)
                    self.write(header + name)
                    self._note(os.fsdecode(name), self.size, size)
                    at += FRAME_HEADER.size + name_size + size
                    while size:
                        rows = earlier.read(min(size, _COPY_BYTES))
                        if not rows:
                            raise SinkError(
                                f"{path} is shorter than before: run without --resume", path
                            )
                        self.write(rows)
                        size -= len(rows)
        except OSError as error:
            raise SinkError(f"cannot read {path} again: {error.strerror}", path) from None

    def begin_reading(self) -> None:
        """Prepare `rows`. Raises SinkError."""
        try:
            self._descriptor = os.open(self.temp_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self.sink_error(error) from None

    def rows(self, name: str) -> Iterator[bytes]:
        """Yield the rows of each frame of a partition. Safe for several threads.

        Raises SinkError.
        """
        places = iter(self._frames[name])
        for offset, size in zip(places, places, strict=True):
            try:
                rows = os.pread(self._descriptor, size, offset)
                while len(rows) < size:  # the system reads at most 2 GiB at a time
                    more = os.pread(self._descriptor, size - len(rows), offset + len(rows))
                    if not more:
                        raise SinkError(f"{self.temp_path} was changed by another program")
                    rows += more
            except OSError as error:
                raise self.sink_error(error) from None
            yield rows

    def discard(self) -> None:
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1
        super().discard()
        if self._is_spool and self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _note(self, name: str, offset: int, size: int) -> None:
        places = self._frames.get(name)
        if places is None:
            if len(self._frames) == MAX_PARTITIONS:
                raise SinkError(
                    f"{self.path} would become more than {MAX_PARTITIONS:,} files, such as"
                    f" {name!r}: name fields with fewer values",
                    self.path,
                )
            places = self._frames[name] = array("Q")
        places.append(offset)
        places.append(size)
