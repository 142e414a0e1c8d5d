"""What each source of a run came to, and its sink: sections of its report."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from asyncbatch.tally import Tally

SourceState = Literal["waiting", "reading", "done", "limited", "failed", "interrupted"]
"""Where a source is: `done` if all its inputs have come to an end, `failed` if none of them was
of any use, `limited` if no more of it was wanted, `interrupted` if the run ended before it."""


class Traffic(Struct, frozen=True):
    """What a source has asked a server for: pages that came, and the requests that took."""

    pages: int = 0
    requests: int = 0


class SourceReport(Struct):
    """What one source came to: its share of the run's counts.

    `found` counts the inputs known so far, which are all if `is_complete`; `extracted` the records
    read, also those that are still to be loaded. `traffic` is None if it asks no server.
    """

    name: str
    type: str
    state: SourceState = "waiting"
    tally: Tally = field(default_factory=Tally)
    found: int = 0
    is_complete: bool = False
    extracted: int = 0
    traffic: Traffic | None = None

    @property
    def input_noun(self) -> str:
        """What one of its inputs is called."""
        return {"files": "file", "http": "URL"}.get(self.type, "input")

    def judge(self, *, is_over: bool, limit: int | None) -> None:
        """Set the state; `is_over` if the run is, which wanted so many records at most."""
        tally = self.tally
        if self.is_complete and tally.files >= self.found:
            self.state = "failed" if self.found and tally.failed == tally.files else "done"
        elif limit is not None and tally.read >= limit:
            self.state = "limited"
        elif is_over:
            self.state = "interrupted"
        elif tally.files or self.extracted or (self.traffic and self.traffic.requests):
            self.state = "reading"


class SinkReport(Struct):
    """Where rows go, by names that may be shown to anybody; `rejected` counts what it refused.

    `mode` and `key` are a table's.
    """

    to: str
    table: str | None = None
    mode: str | None = None
    key: tuple[str, ...] = ()
    rejected: int = 0

    @property
    def place(self) -> str:
        """What people call it."""
        return f"{self.table} of {self.to}" if self.table else self.to


class Stages(Struct, frozen=True):
    """How far a run is, stage by stage.

    `worked` counts what has come out of the workers, its `written` being the rows made;
    `waiting` are the pages that no worker has taken yet, `lanes` how many batches may be in flight.
    """

    worked: Tally
    sources: list[SourceReport]
    waiting: int
    lanes: int
