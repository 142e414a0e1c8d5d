"""The identity of an input: its name in ledgers, shards and mirrored outputs."""

from __future__ import annotations

import os
from typing import NamedTuple

from asyncbatch.core.paths import is_object_url, join_url, redact_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.errors import UsageError


def identity(path: str, root: str | None = None) -> str:
    """Return the identity of the input at `path`, the same for every spelling of the path.

    Without `root`, the identity is the normalised path: `./data//x.json` becomes `data/x.json`, and
    relative paths stay relative. With `root`, it is the path below that folder, which is the same
    on every machine. Links are not resolved, and the file need not exist. Standard input is `-`.
    Bytes that are not UTF-8 stay surrogate escapes. The identity of an object is its URL without
    secrets.

    Raises UsageError if `path` is not below `root`.
    """
    if path == STDIN:
        return path
    if is_object_url(path):
        return _object_identity(redact_url(path), root)
    if root is None:
        return _single_slash(os.path.normpath(path))
    above = _single_slash(os.path.abspath(root)).rstrip("/") + "/"
    full = _single_slash(os.path.abspath(path))
    if full == (above.rstrip("/") or "/"):  # the walk yields a folder that cannot be listed
        return "."
    if not full.startswith(above):
        raise UsageError(f"{display_path(path)} is not below --root {display_path(root)}")
    return full.removeprefix(above)


class InputNaming(NamedTuple):
    """The rule that names the files of one source: its prefix, then their identity."""

    root: str | None = None
    prefix: str = ""  # empty, or ends with two slashes, which no identity of a file contains

    def name(self, path: str) -> str:
        """Return the name of the file at `path`. Raises UsageError as `identity` does."""
        return self.prefix + identity(path, self.root)

    def path(self, name: str) -> str | None:
        """Return the path of the file called `name`, or None for a file of another source."""
        name = name.removeprefix(self.prefix) if name.startswith(self.prefix) else "//"
        if is_object_url(name):
            return name
        if "//" in name:
            return None
        if self.root is not None and is_object_url(self.root):
            return join_url(self.root, name)
        return os.path.join(self.root or "", name.removeprefix(self.prefix))


def mirrored_path(path: str, root: str | None) -> str:
    """Return the path of an input's output, relative to the output folder.

    Without `root`, the path of an object begins with its bucket, that of a web address with its
    host. Raises UsageError as `identity` does.
    """
    name = identity(path, root)
    if is_object_url(name):
        name = name.partition("://")[2].partition("?")[0]
    return name.lstrip("/")


def _object_identity(url: str, root: str | None) -> str:
    if root is None:
        return url
    above = root.rstrip("/") + "/"
    if not url.startswith(above) or url == above:
        if url.rstrip("/") + "/" == above:
            return "."
        raise UsageError(f"{url} is not below --root {display_path(root)}")
    return url.removeprefix(above)


def _single_slash(path: str) -> str:
    """Replace two leading slashes by one. `normpath` keeps both, as POSIX allows."""
    return path[1:] if path.startswith("//") else path
