"""Names of sources made into sources."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.records import STDIN
from asyncbatch.sources.selection import Selection
from asyncbatch.streams.sources import FileSource

if TYPE_CHECKING:
    from asyncbatch.streams.chunks import Source


class Reading(Struct, frozen=True):
    """How paths are read: whether they are followed, and if so only `from_end` on.

    The `selection` is for folders.
    """

    follow: bool = False
    from_end: bool = False
    selection: Selection = Selection()

    def check(self) -> None:
        """Raise UsageError if this can't be meant."""
        if self.from_end and not self.follow:
            raise UsageError("--from-end is for --follow")


_TO_THE_END = Reading()


def open_path(path: str, reading: Reading = _TO_THE_END) -> Source:
    """Return a file, a folder, or standard input ('-') as a source. Raises UsageError."""
    reading.check()
    is_folder = path != STDIN and os.path.isdir(path)
    if is_folder:
        from asyncbatch.streams.folder import FolderSource  # noqa: PLC0415 - if asked for

        return FolderSource(
            path, reading.selection, follow=reading.follow, from_end=reading.from_end
        )
    if not reading.follow or path == STDIN:
        return FileSource(path)
    from asyncbatch.streams.followed import FollowedSource  # noqa: PLC0415 - see above

    return FollowedSource(path, from_end=reading.from_end)
