"""Local paths and object URLs."""

from __future__ import annotations

from typing import NamedTuple, Self

from asyncbatch.errors import UsageError

_STORES = ("s3", "gs", "az")


class ObjectPath(str):  # noqa: SLOT000 - a subclass of str cannot have slots that hold something
    """The URL of an object, which goes wherever the path of a file goes.

    `size` (bytes) and `etag` are those that a listing told, or None; `changed_ns` is when it was
    written. `trouble` is what was found out in place of them: an `errno` and a message.
    """

    size: int | None
    etag: str | None
    changed_ns: int
    problem: tuple[int, str] | None

    def __new__(
        cls,
        url: str,
        size: int | None = None,
        etag: str | None = None,
        changed_ns: int = 0,
        trouble: tuple[int, str] | None = None,
    ) -> Self:
        """Make one, of plain text or of another."""
        made = super().__new__(cls, url)
        made.size, made.etag, made.changed_ns, made.problem = size, etag, changed_ns, trouble
        return made

    def __reduce__(self) -> tuple[object, ...]:
        told = (str(self), self.size, self.etag, self.changed_ns, self.problem)
        return ObjectPath, told

    @property
    def shown(self) -> str:
        """The URL as plain text for anybody: no passwords, signatures and tokens.

        A key of a store is no secret, and may have any character.
        """
        scheme, _, rest = self.partition("://")
        if scheme in _STORES:
            bucket, slash, key = rest.partition("/")
            text = f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"
        else:
            from asyncbatch.core.secrets import secret_url

            try:
                text = secret_url(self).shown
            except ValueError:
                text = f"{scheme}://…"
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


STORES = ("s3", "gs", "az")
"""Schemes of stores: what has buckets, and keys in them that can be listed."""
WEB = ("http", "https")
"""Schemes of single objects that are only read."""
_SCHEMES = (*STORES, *WEB)


class Address(NamedTuple):
    """Where an object is, or a prefix that stands for a folder.

    `key` is the object's, as the store has it: nothing in it is escaped, and a slash at its end
    counts. Of `http(s)://` there is no key, and `bucket` is all that follows the scheme.
    """

    scheme: str
    bucket: str
    key: str

    @property
    def is_web(self) -> bool:
        """Whether this is a single object of a web server."""
        return self.scheme in WEB

    def __str__(self) -> str:
        """Return the URL itself, with whatever secrets are in it; see `shown_url`."""
        return f"{self.scheme}://{self.bucket}" + ("" if self.is_web else f"/{self.key}")


def is_object_url(text: str) -> bool:
    """Whether `text` names an object, or a prefix, and no file."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme in _SCHEMES


def is_store_url(text: str) -> bool:
    """Whether `text` is in a store, which can be listed and written to; `http(s)://` is not."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme in STORES


def parse_address(url: str) -> Address:
    """Return what a URL means. Raises UsageError if it is none of ours."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        raise UsageError(f"{shown_url(url)} is no s3://, gs://, az://, http:// or https:// URL")
    if scheme in WEB:
        if not rest.partition("/")[0]:
            raise UsageError(f"{shown_url(url)} names no host")
        return Address(scheme, rest, "")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            f"{scheme}://{bucket.rpartition('@')[2]}: credentials have no place in a URL: they "
            "come from the environment (see docs/cloud.md)"
        )
    if not bucket:
        raise UsageError(f"{url} names no bucket: {scheme}://BUCKET/KEY")
    return Address(scheme, bucket, key)


def join_url(folder: str, name: str) -> str:
    """Return the URL of what is called `name` below a prefix."""
    return f"{folder.rstrip('/')}/{name}" if folder.count("/") > 2 else f"{folder}/{name}"


def parent_url(url: str) -> str:
    """Return the URL of the prefix that an object is in, with a slash at its end."""
    scheme, _, rest = url.partition("://")
    above, slash, _ = rest.rpartition("/")
    return f"{scheme}://{above}/" if slash else f"{scheme}://{rest}/"


def shown_url(url: str) -> str:
    """Return a URL as it may be seen by anybody; see `ObjectPath.shown`."""
    return ObjectPath(url).shown
