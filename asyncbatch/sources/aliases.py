"""The search for inputs that may be one of a few files, under a name of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.core.paths import is_object_url
from asyncbatch.core.records import STDIN
from asyncbatch.sources.inputs import is_ignored_below, read_list, resolve_argument
from asyncbatch.sources.selection import Filter, has_magic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from asyncbatch.sources.inputs import Inputs

FileId = tuple[int, int]  # device and inode


def file_id(path: str | int) -> FileId | None:
    """Return the identity of the file at a path or a descriptor, or None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def find_aliases(
    inputs: Inputs, ids: Collection[FileId], is_shared: Callable[[str], bool]
) -> Iterator[str]:
    """Yield the inputs that may be one of the files with these identities.

    Of a folder, these are symbolic links and files with one of the inodes: its listing tells both,
    so that no other file is looked at. All files of a folder that `is_shared` are yielded, and all
    that are named, listed or match a glob. An archive stands for its members. A list that can be
    read only once is not read.
    """
    if inputs.limit is not None:
        yield from () if inputs.may_name_objects else inputs.find_all()
        return
    wanted = Filter(inputs.selection)
    scan = _Scan(wanted, {inode for _, inode in ids}, is_shared)
    for argument in inputs.paths:
        if argument == STDIN or is_object_url(argument):
            continue
        if os.path.isdir(argument):
            yield from scan.find(argument)
        elif has_magic(argument) and not os.path.lexists(argument):
            yield from resolve_argument(argument, wanted)
        else:
            yield argument
    if inputs.files_from is not None and os.path.isfile(inputs.files_from):
        for path in read_list(inputs.files_from, null=inputs.null):
            if os.path.isdir(path):
                yield from scan.find(path)
            elif path != STDIN and not is_object_url(path):
                yield path


class _Scan:
    """Scans of folders. They take the files that a walk takes, in any order."""

    def __init__(
        self, wanted: Filter, inodes: Collection[int], is_shared: Callable[[str], bool]
    ) -> None:
        self._wanted, self._inodes, self._is_shared = wanted, inodes, is_shared
        self._follows = wanted.follow_symlinks

    def find(self, root: str) -> Iterator[str]:
        """Yield the files below a folder that `find_aliases` yields."""
        takes_file, gitignore = self._wanted.takes_file, self._wanted.gitignore
        nowhere: tuple[FileId | None, ...] = ()
        folders = [(root, "", self._is_shared(root), nowhere)]
        while folders:
            folder, below, takes_all, above = folders.pop()
            if self._follows:  # a link to a parent folder is not followed
                if (one := file_id(folder)) in above:
                    continue
                above = (*above, one)
            try:
                entries = os.scandir(folder)
            except OSError:  # the walk reports it
                continue
            with entries:
                for entry in entries:
                    is_link = entry.is_symlink()
                    if self._is_folder(entry, is_link=is_link):
                        if self._wanted.takes_folder(entry.name, below):
                            is_shared = takes_all or (is_link and self._is_shared(entry.path))
                            folders.append((entry.path, f"{below}{entry.name}/", is_shared, above))
                    elif (
                        (is_link or takes_all or entry.inode() in self._inodes)
                        and takes_file(entry.name, below)
                        and not (gitignore and is_ignored_below(root, entry.path))
                    ):
                        yield entry.path

    def _is_folder(self, entry: os.DirEntry[str], *, is_link: bool) -> bool:
        try:
            return entry.is_dir(follow_symlinks=is_link and self._follows)
        except OSError:  # a link to itself
            return False
