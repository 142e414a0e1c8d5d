"""Local paths, object URLs, and members of archives."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from msgspec import Struct

from asyncbatch.errors import UsageError

_STORES = ("s3", "gs", "az")


class ObjectPath(str):  # noqa: SLOT000 - a subclass of str cannot have nonempty slots
    """The URL of an object; usable wherever a file path is."""

    size: int | None  # bytes; None if not known from a listing
    etag: str | None  # None if not known from a listing
    changed_ns: int  # the time of the last write, in nanoseconds since the epoch; 0 if unknown
    problem: tuple[int, str] | None  # an `errno` and a message, if the object cannot be read

    def __new__(
        cls,
        url: str,
        size: int | None = None,
        etag: str | None = None,
        changed_ns: int = 0,
        problem: tuple[int, str] | None = None,
    ) -> Self:
        """Return the path of the object at `url`."""
        path = super().__new__(cls, url)
        path.size, path.etag, path.changed_ns, path.problem = size, etag, changed_ns, problem
        return path

    def __reduce__(self) -> tuple[object, ...]:
        arguments = (str(self), self.size, self.etag, self.changed_ns, self.problem)
        return ObjectPath, arguments

    @property
    def redacted(self) -> str:
        """The URL without passwords, signatures and tokens.

        The key of an object is not a secret, and may have any character.
        """
        scheme, _, rest = self.partition("://")
        if scheme in _STORES:
            bucket, slash, key = rest.partition("/")
            text = f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"
        else:
            from asyncbatch.core.secrets import secret_url

            try:
                text = secret_url(self).redacted
            except ValueError:
                text = f"{scheme}://…"
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_ARCHIVE_ENDINGS = (
    *(".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    *(".tgz", ".tbz2", ".txz", ".tzst"),
)


def is_archive_name(path: str) -> bool:
    """Whether the ending of a file name is that of an archive."""
    return path.lower().endswith(_ARCHIVE_ENDINGS)


class MemberInfo(Struct, frozen=True, gc=False):
    """The place of a member in its archive, and the archive's data about it."""

    archive: str  # the path of the archive
    changed_ns: int  # the time of the archive's last write, in nanoseconds since the epoch
    form: Literal["zip", "tar", "packed"] = "zip"  # packed: a compressed tar, read from its start
    size: int = 0  # bytes, unpacked
    offset: int = 0  # the byte of a zip's local header, or of the data in the unpacked tar
    stored_size: int = 0  # bytes in the zip
    method: int = 0  # the zip's number of the compression
    crc: int | None = None  # the CRC-32 of the content; None in a tar
    written: str = ""  # the time of the member's last write, as the zip has it
    problem: Exception | None = None  # the reason why the member cannot be read


class ArchiveMember(str):  # noqa: SLOT000 - a subclass of str cannot have nonempty slots
    """The path of a member below its archive, as if that were a folder: `a.zip/in/b.json`.

    Usable wherever a file path is. It has no `..`, and is the path of the archive itself if that
    cannot be read.
    """

    info: MemberInfo

    def __new__(cls, path: str, info: MemberInfo) -> Self:
        """Return the path of a member."""
        member = super().__new__(cls, path)
        member.info = info
        return member

    def __reduce__(self) -> tuple[object, ...]:
        return ArchiveMember, (str(self), self.info)


# schemes of object stores, which have buckets with keys that can be listed
STORE_SCHEMES = ("s3", "gs", "az")
WEB_SCHEMES = ("http", "https")  # schemes of single objects, which can only be read
_SCHEMES = (*STORE_SCHEMES, *WEB_SCHEMES)


class Address(NamedTuple):
    """The scheme, bucket and key of an object, or of a prefix that acts as a folder."""

    scheme: str
    bucket: str  # for http(s): the URL after the scheme
    key: str  # unescaped, as in the store; a final slash is part of it; empty for http(s)

    @property
    def is_web(self) -> bool:
        """Whether this is a single object of a web server."""
        return self.scheme in WEB_SCHEMES

    def __str__(self) -> str:
        """Return the full URL, secrets included. `redact_url` leaves them out."""
        return f"{self.scheme}://{self.bucket}" + ("" if self.is_web else f"/{self.key}")


def is_object_url(text: str) -> bool:
    """Whether `text` is the URL of an object or a prefix, not a file path."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme in _SCHEMES


def is_store_url(text: str) -> bool:
    """Whether `text` is the URL of an object store. http(s) URLs are not."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme in STORE_SCHEMES


def parse_address(url: str) -> Address:
    """Return the address of a URL. Raises UsageError if the URL is invalid."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        raise UsageError(
            f"{redact_url(url)} is not an s3://, gs://, az://, http:// or https:// URL"
        )
    if scheme in WEB_SCHEMES:
        if not rest.partition("/")[0]:
            raise UsageError(f"{redact_url(url)} names no host")
        return Address(scheme, rest, "")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            f"{scheme}://{bucket.rpartition('@')[2]}: a bucket URL cannot contain credentials: "
            "set them in the environment (see docs/cloud.md)"
        )
    if not bucket:
        raise UsageError(f"{url} names no bucket: {scheme}://BUCKET/KEY")
    return Address(scheme, bucket, key)


def join_url(folder: str, name: str) -> str:
    """Return the URL of `name` below a prefix."""
    return f"{folder.rstrip('/')}/{name}" if folder.count("/") > 2 else f"{folder}/{name}"


def redact_url(url: str) -> str:
    """Return a URL without secrets, as `ObjectPath.redacted` does."""
    return ObjectPath(url).redacted
