"""Which state objects are in: what tells one from another, and how a store is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.cloud.troubles import object_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncbatch.cloud.store import Place


class Version(NamedTuple):
    """What tells one state of an object from another."""

    etag: str
    size: int


def versions_in(place: Place, url: str) -> Mapping[str, Version]:
    """Return the objects in the prefix at `url`, by name; not those further below.

    Raises ObjectError.
    """
    import obstore  # noqa: PLC0415 - in an extra, and the place could be opened

    try:
        listed = obstore.list_with_delimiter(place.store, place.key)
    except Exception as error:  # noqa: BLE001 - the library's
        raise object_error(error, url) from None
    return {
        one["path"].rpartition("/")[2]: Version(one["e_tag"] or "", one["size"])
        for one in listed["objects"]
    }
