"""How a run uses what a ledger says."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.cloud.settings import StoreSettings


class LedgerSettings(Struct, frozen=True):
    """Of which job entries are kept, where, and what they mean for this run.

    `fingerprint` tells the job from others (see `fingerprint`), `description` shows it to
    people. `path` is the file for targets that hold no ledger themselves; `is_asked` if the run
    cannot do without. With `resume`, inputs that are done are skipped; with `retry_failed`, all
    that have not failed; `force` does all again. `allow_duplicates` lets rows be added twice.
    `by_content` tells files' states by what is in them. Identities are relative to `root`;
    those of objects are in `stores`.
    """

    fingerprint: str
    description: str
    path: str
    is_asked: bool = False
    resume: bool = False
    retry_failed: bool = False
    force: bool = False
    allow_duplicates: bool = False
    by_content: bool = False
    root: str | None = None
    stores: StoreSettings = StoreSettings()

    @property
    def carries_on(self) -> bool:
        """Whether the run goes on where an earlier one ended."""
        return self.resume or self.retry_failed
