"""A ledger that is read by one thread and let go of by another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.entries import Entry, Ledger, Stamp


class SharedLedger:
    """Lets one thread after another at a ledger; once it is closed there are no entries.

    When a run is stopped a thread may still be looking something up: it cannot be stopped with it,
    and nobody waits for what it finds.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger: Ledger | None = ledger
        self._turn = threading.Lock()

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        """See `Ledger`."""
        with self._turn:
            return self._ledger.lookup(paths) if self._ledger else {}

    def find(self, stamp: Stamp) -> Sequence[str]:
        """See `Ledger`."""
        with self._turn:
            return self._ledger.find(stamp) if self._ledger else ()

    def close(self) -> None:
        """See `Ledger`."""
        with self._turn:
            ledger, self._ledger = self._ledger, None
            if ledger is not None:
                ledger.close()
