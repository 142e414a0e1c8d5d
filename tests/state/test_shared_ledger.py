"""A stopped run closes its ledger while a thread still looks up an input in it."""

from __future__ import annotations

import threading

from asyncbatch.core.ledger_entries import Stamp
from asyncbatch.state.ledger.file import SharedLedger


class Slow:
    """A ledger whose lookup waits for `go_on`. Like DuckDB, it must not be closed meanwhile."""

    def __init__(self):
        self.began, self.go_on = threading.Event(), threading.Event()
        self.is_busy = False
        self.closed = 0

    def lookup(self, paths):  # noqa: ARG002 - a parameter of `Ledger`
        self.is_busy = True
        self.began.set()
        assert self.go_on.wait(60)
        self.is_busy = False
        return {}

    def find(self, stamps):  # noqa: ARG002 - a parameter of `Ledger`
        raise AssertionError("it is closed")

    def close(self):
        assert not self.is_busy
        self.closed += 1


def test_it_is_closed_once_when_the_lookup_is_through():
    slow = Slow()
    ledger = SharedLedger(slow)
    looking = threading.Thread(target=ledger.lookup, args=(["a"],))
    looking.start()
    assert slow.began.wait(60)
    threading.Timer(0.1, slow.go_on.set).start()
    ledger.close()
    assert slow.closed == 1
    looking.join()
    ledger.close()
    assert slow.closed == 1
    assert (ledger.lookup(["a"]), ledger.find([Stamp(1, 1, None)])) == ({}, ())
