"""A prefix of an object store that mirrors the inputs: an object for each, put by its worker."""

from __future__ import annotations

import errno
import posixpath
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING

from asyncbatch.cloud.new_object import NewObject, check_writable
from asyncbatch.cloud.store import Stores
from asyncbatch.cloud.versions import Version, versions_in
from asyncbatch.entries import Extent
from asyncbatch.errors import UsageError
from asyncbatch.records import display_path
from asyncbatch.sinks.folder import MirroredOutput, output_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.settings import FileWorkSettings
    from asyncbatch.sinks import Pending
    from asyncbatch.sinks.target import Target

_AT_ONCE = 16
"""Objects that a worker puts at a time: each takes as long as the store takes to answer."""
_PART, _PARTS_AT_ONCE = 8 * 1024 * 1024, 2
"""Of a large one: less than elsewhere, for there are several workers."""
_FOLDERS = 8
"""What is in so many folders is remembered: inputs come folder by folder, depth first."""


class ObjectOutput(MirroredOutput[NewObject]):
    """Of objects below a prefix; they are put while the next are made.

    No more than so many bytes wait for that, or one object.
    """

    losing = frozenset((errno.EACCES, errno.ENOENT, errno.EAGAIN, errno.ECONNRESET))

    def __init__(self, target: Target, files: FileWorkSettings) -> None:
        super().__init__(target, files.format)
        self._stores = Stores(target.stores or files.stores, writes=True)
        self._most = files.sizes.waiting
        self._threads = ThreadPoolExecutor(_AT_ONCE)
        self._under_way: deque[tuple[Future[Version], NewObject]] = deque()
        self._pending: Pending | None = None
        self._is_abandoned = False

    def make(self, path: str) -> NewObject:
        """See `MirroredOutput`."""
        if self._is_abandoned:
            raise OSError(errno.ECANCELED, "the run was stopped")
        return NewObject(self._stores.place(path), path, _PART, at_once=_PARTS_AT_ONCE)

    def complete(self, new: NewObject) -> None:
        """See `MirroredOutput`."""
        under_way = self._under_way
        while under_way and (
            under_way[0][0].done() or sum(one.size for _, one in under_way) + new.size > self._most
        ):
            under_way[0][0].exception()  # whoever has it pending is told
            under_way.popleft()
        done = self._threads.submit(new.complete)
        under_way.append((done, new))
        path = self._path

        def wait() -> Extent:
            with self.naming(path):
                return extent_of_version(done.result())

        self._pending = wait

    def take_pending(self) -> Pending | None:
        """See `MirroredOutput`."""
        pending, self._pending = self._pending, None
        return pending

    def abandon(self) -> None:
        """See `Outlet`."""
        self._is_abandoned = True
        begun = [new for _, new in tuple(self._under_way)]
        for new in (*begun, *([] if self._new is None else [self._new])):
            new.abort()


class ObjectStates:
    """Tells which state the outputs in a prefix are in, by listing its folders; for one thread."""

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        self._target, self._stores = target, Stores(settings, writes=True)
        self._known: OrderedDict[str, Mapping[str, Version]] = OrderedDict()

    def extent_of(self, path: str) -> Extent | None:
        """Return the state that the output for the input at `path` is in, if there is one.

        Raises UsageError if the store does not say.
        """
        try:
            output = output_path(self._target, path)
        except UsageError:  # whoever writes it says why
            return None
        folder, name = posixpath.split(output)
        if folder not in self._known:
            if len(self._known) == _FOLDERS:
                self._known.popitem(last=False)
            self._known[folder] = self._listed(folder)
        self._known.move_to_end(folder)
        version = self._known[folder].get(name)
        return None if version is None else extent_of_version(version)

    def _listed(self, folder: str) -> Mapping[str, Version]:
        try:
            return versions_in(self._stores.place(folder), folder)
        except OSError as error:
            raise UsageError(
                f"cannot see what is in {display_path(folder)}/, to tell what need not be done "
                f"again: {error.strerror}; --force does all"
            ) from None


def extent_of_version(version: Version) -> Extent:
    """Return the state of an object as an extent, which has room for a number."""
    digest = blake2b(version.etag.strip('"').encode(), digest_size=8).digest()
    return Extent(int.from_bytes(digest, "big") >> 1, version.size)


def check_prefix(target: Target, settings: StoreSettings) -> None:
    """See that objects could be written below a prefix. Raises UsageError."""
    url = f"{target.path}asyncbatch"
    try:
        check_writable(Stores(settings, writes=True).place(url), url)
    except OSError as error:
        raise UsageError(f"cannot write {target.name}: {error.strerror}") from None
