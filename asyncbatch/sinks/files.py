"""What is written whole: a file, or an object in its place."""

from __future__ import annotations

from asyncbatch.cloud.address import is_store_url
from asyncbatch.cloud.settings import StoreSettings
from asyncbatch.sinks.atomic import AtomicFile


def whole_file(
    path: str, stores: StoreSettings | None = None, *, at_random: bool = False
) -> AtomicFile:
    """Return what writes the file, or the object, at `path`.

    `at_random` if what was written is read again, or written once more from the beginning.
    """
    if not is_store_url(path):
        return AtomicFile(path)
    from asyncbatch.sinks.object_file import ObjectFile, SpooledObject  # noqa: PLC0415 - see there

    return (SpooledObject if at_random else ObjectFile)(path, stores or StoreSettings())
