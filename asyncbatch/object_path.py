"""The handle of an object of a store: its URL, and what is known of it before it is read."""

from __future__ import annotations

from typing import Self

_STORES = ("s3", "gs", "az")


class ObjectPath(str):  # noqa: SLOT000 - a subclass of str cannot have slots that hold something
    """The URL of an object, which goes wherever the path of a file goes.

    `size` (bytes) and `etag` are those that a listing told, or None; `changed_ns` is when it was
    written. `trouble` is what was found out in place of them: an `errno` and a message.
    """

    size: int | None
    etag: str | None
    changed_ns: int
    trouble: tuple[int, str] | None

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
        made.size, made.etag, made.changed_ns, made.trouble = size, etag, changed_ns, trouble
        return made

    def __reduce__(self) -> tuple[object, ...]:
        told = (str(self), self.size, self.etag, self.changed_ns, self.trouble)
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
            from asyncbatch.secret import secret_url  # noqa: PLC0415 - few runs have URLs of the web

            try:
                text = secret_url(self).shown
            except ValueError:
                text = f"{scheme}://…"
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
