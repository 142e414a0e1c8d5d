"""The replay of a dead letter file: which of its records the inputs lack, by the ledger."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from asyncbatch.errors import UsageError
from asyncbatch.sinks.dead_letters import read_dead_letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncbatch.core.ledger_entries import Entry, Ledger
    from asyncbatch.core.records import Failure
    from asyncbatch.sources.identity import InputNaming


class RejectedRecord(NamedTuple):
    """A record that was rejected: its file as messages name it, and its number there."""

    file: str
    record: int


class Replay:
    """The records of a dead letter file, and the ledger entries of the inputs that they are from.

    The entry of an input keeps the dead letters of the records that its target lacks. After a
    replay these are fewer. A record that another replay has added is not among them. `begun` is the
    unfinished entry of the file itself.
    """

    def __init__(self, path: str, naming: InputNaming, ledger: Ledger, begun: Entry | None) -> None:
        """Read a dead letter file. Raises OSError, and the errors of the database."""
        # Those that this replay rejects again, from its beginning on.
        self._rejected = set(_rejected_records(begun.letters.splitlines() if begun else ()))
        self._knows_rejected = begun is None or begun.rejected == len(self._rejected)
        self._records: dict[str, set[int]] = defaultdict(set)  # by file
        with open(path, "rb") as lines:
            for found in _rejected_records(lines):
                self._records[found.file].add(found.record)
        names: dict[str, str] = {}
        for file in self._records:
            with suppress(UsageError):  # no file has this name: the ledger knows nothing of it
                names[file] = naming.name(file)
        entries = ledger.lookup(list(names.values()))
        self._entries = {file: entries[name] for file, name in names.items() if name in entries}

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def added_records(self) -> list[RejectedRecord]:
        """Return the records that an earlier replay has added."""
        return [
            RejectedRecord(file, record)
            for file, entry in self._entries.items()
            for record in sorted(self._records[file] - _numbers(entry.letters, file))
        ]

    def reject(self, failures: Iterable[Failure]) -> None:
        """Note records that were rejected again."""
        for failure in failures:
            if failure.record is not None:
                self._rejected.add(RejectedRecord(failure.file, failure.record))

    def entries(self) -> list[Entry]:
        """Return the entries that the finished replay changes: without its added records.

        Without the dead letters of the run that began it, they are unknown: then none.
        """
        if not self._knows_rejected:
            return []
        changed = []
        for file, entry in self._entries.items():
            added = {RejectedRecord(file, record) for record in self._records[file]}
            added -= self._rejected
            lines = entry.letters.splitlines(keepends=True)
            left = b"".join(line for line in lines if added.isdisjoint(_rejected_records([line])))
            if left != entry.letters:
                changed.append(replace(entry, letters=left))
        return changed


def _numbers(letters: bytes, file: str) -> set[int]:
    return {found.record for found in _rejected_records(letters.splitlines()) if found.file == file}


def _rejected_records(lines: Iterable[bytes]) -> Iterator[RejectedRecord]:
    """Yield the records of dead letters. A line that is none is reported by its reader."""
    for line in lines:
        with suppress(msgspec.DecodeError, ValueError):
            found = read_dead_letter(line)
            if found.is_record and found.record is not None:
                yield RejectedRecord(found.file, found.record)
