"""Where feeds are taken up, by what a ledger says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from asyncbatch.entries import Stamp
from asyncbatch.journal import KnownInput
from asyncbatch.records import Bookmark, Failure

if TYPE_CHECKING:
    from asyncbatch.entries import Entry, Ledger
    from asyncbatch.feeds import Feed
    from asyncbatch.journal import Known
    from asyncbatch.ledger.settings import LedgerSettings

_WAYS = (
    "name a key in [sink], so that rows replace those of the same key, have mode replace the "
    "table, or add them again with --allow-duplicates"
)
_AGAIN = f"its rows are in the table already: {_WAYS}"
_ANEW = (
    "some of its rows are in the table, and where an earlier run ended cannot be gone on: its "
    f"pages are not stable, or are asked for in another way now. {_WAYS[0].upper()}{_WAYS[1:]}"
)


class Bookmarks:
    """Decides about feeds; by one thread at a time.

    `known` takes the identity of each that is read. `adds` if the target keeps rows of earlier
    runs and none replaces another.
    """

    def __init__(
        self, settings: LedgerSettings, ledger: Ledger, known: Known, *, adds: bool
    ) -> None:
        self._settings, self._ledger, self._known = settings, ledger, known
        self._adds = adds and not settings.force and not settings.allow_duplicates

    def admit(self, feed: Feed) -> Bookmark | Failure | None:
        """Return where to take a feed up (None: at its beginning), or why it is not read.

        Raises what the database behind the ledger raises.
        """
        stamp = Stamp(0, 0, feed.form)
        entry = self._ledger.lookup([feed.name]).get(feed.name)
        bookmark = self._bookmark(entry, stamp)
        goes_on = bookmark is not None and bookmark.mark is not None
        if entry is not None and entry.written and self._adds and not goes_on:
            is_done = entry.outcome in ("success", "partial")
            if not (is_done and feed.is_incremental and bookmark is not None):
                return Failure(feed.name, "sink", _AGAIN if is_done else _ANEW)
        self._known[feed.name] = KnownInput(feed.name, stamp, entry if goes_on else None)
        return bookmark

    def _bookmark(self, entry: Entry | None, stamp: Stamp) -> Bookmark | None:
        """Return what an entry has, if the feed's records are still found in the same way."""
        if entry is None or entry.bookmark is None or self._settings.force:
            return None
        if not stamp.is_of(entry.stamp):
            return None
        bookmark = msgspec.json.decode(entry.bookmark, type=Bookmark)
        if bookmark.mark is not None:
            return bookmark
        return Bookmark(since=bookmark.since)
