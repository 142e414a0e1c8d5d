"""The admission of inputs: whether each is processed, resumed, skipped or refused."""

from __future__ import annotations

import hashlib
import os
import stat
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import structs

from asyncbatch.core.batches import Batch, prepared_part
from asyncbatch.core.ledger_entries import Entry, Stamp
from asyncbatch.core.paths import ArchiveMember, ObjectPath, is_object_url
from asyncbatch.core.records import STDIN, Bookmark, Failure, Position, display_path
from asyncbatch.core.units import format_count
from asyncbatch.pipeline.resume.journal import KnownInput
from asyncbatch.pipeline.resume.replay import Replay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from asyncbatch.core.batches import Part
    from asyncbatch.core.ledger_entries import Ledger
    from asyncbatch.core.paths import MemberInfo
    from asyncbatch.core.settings import LedgerSettings
    from asyncbatch.pipeline.resume.journal import KnownInputs
    from asyncbatch.sources.base import Feed
    from asyncbatch.sources.identity import InputNaming
    from asyncbatch.workers.engine import Lane

# Reasons of skipped files, as in reports.
DONE = "done"  # an earlier run processed it
NOT_FAILED = "not failed before"  # only failed files are retried


_DUPLICATE_ADVICE = (
    "its rows are in the table already: --resume skips it, --allow-duplicates or --force adds them"
    " again"
)
_BEGUN_ADVICE = (
    "some of its rows are in the table already: --resume adds the others, --allow-duplicates or "
    "--force adds all of them again"
)
_CHANGED = (
    "it has changed since rows of it were added to the table, which has no key to replace them: "
    "name a key with --key, or keep the old rows and add the new ones with --allow-duplicates"
)


_StampKey = tuple[int, int] | str  # size and time, or a digest


class _Skip(NamedTuple):
    reason: str
    entry: Entry | None


class Admission:
    """Decides which inputs to process, in input order; used by one thread at a time.

    It adds the identity and stamp of each admitted input to `known`. `appends`: the target keeps
    earlier rows, and no row replaces another. `is_unchanged` returns whether the output of an input
    is as its entry says. With `needs_first` inputs are skipped only if the first input that has
    rows is skipped. `repeats_rejected`: an input with rejected records is not skipped.
    """

    def __init__(
        self,
        settings: LedgerSettings,
        ledger: Ledger,
        known: KnownInputs,
        *,
        appends: bool,
        is_unchanged: Callable[[str, Entry], bool] = lambda path, entry: True,  # noqa: ARG005 - the default checks nothing
        needs_first: bool = False,
        repeats_rejected: bool = False,
    ) -> None:
        self._repeats_rejected = repeats_rejected
        self._settings, self._ledger, self._known = settings, ledger, known
        self._appends, self._is_unchanged = appends and not settings.force, is_unchanged
        self._checks_ledger = (settings.is_resuming or appends) and not settings.force
        self._can_skip: bool | None = None if needs_first else True
        # Paths of files that the run has moved or deleted, which the ledger does not know yet.
        self.put_away: set[str] = set()

    def decide(self, first: int, paths: Sequence[str], naming: InputNaming) -> list[Batch]:
        """Return batches of paths. `first` is the number of the first path in the run.

        Skipped and refused paths are in batches with a prepared part. Raises the errors of the
        database of the ledger; UsageError for a path without an identity.
        """
        identified = [self._identify(path, naming) for path in paths]
        names, stamps = [name for name, _ in identified], [stamp for _, stamp in identified]
        entries = self._entries(paths, identified) if self._checks_ledger else {}
        gone = self._gone_inputs(names, stamps, entries, naming)
        verdicts: list[_Skip | Failure | None] = []
        for path, name, stamp in zip(paths, names, stamps, strict=True):
            verdict = (
                self._decide(path, entries.get(name), stamp, gone) if self._checks_ledger else None
            )
            if verdict is None and stamp is not None:
                begun = self._resumable_entry(path, entries.get(name), stamp)
                replay = None
                if path == self._settings.replay:
                    replay = Replay(path, naming, self._ledger, begun)
                    verdict = self._refuse_added(path, replay)
                if verdict is None:
                    self._known[path] = KnownInput(name, stamp, begun, replay)
            verdicts.append(verdict)
        batches = []
        for is_open, group in groupby(range(len(paths)), lambda at: verdicts[at] is None):
            places = list(group)
            start, stop = places[0], places[-1] + 1
            part = None if is_open else _make_part(first + start, verdicts[start:stop])
            batches.append(Batch(first + start, tuple(paths[start:stop]), prepared_part=part))
        return batches

    def _identify(self, path: str, naming: InputNaming) -> tuple[str, Stamp | None]:
        """Return the identity and the stamp of an input.

        A dead letter file is known by its content alone: the next one often has the same name.
        """
        if path != self._settings.replay:
            return naming.name(path), stamp_of(path, by_content=self._settings.by_content)
        stamp = stamp_of(path, by_content=True)
        # No identity of a file contains two slashes.
        return f"dead letters//{stamp.digest if stamp else display_path(path)}", stamp

    def _entries(
        self, paths: Sequence[str], identified: Sequence[tuple[str, Stamp | None]]
    ) -> Mapping[str, Entry]:
        """Return the entries of inputs by their names.

        An input that was put away has none: another file with its name is a new one. One that is
        back has the same size and time, also where files are known by their content.
        """
        entries = dict(self._ledger.lookup([name for name, _ in identified]))
        for path, (name, stamp) in zip(paths, identified, strict=True):
            entry = entries.get(name)
            if entry is None or stamp is None or stamp[:2] == entry.stamp[:2]:
                continue
            if entry.is_put_away or path in self.put_away:
                del entries[name]
        return entries

    def resume_position(self, path: str) -> Position | None:
        """Return the position at which an admitted file resumes; None: its beginning."""
        known = self._known.get(path)
        begun = known.unfinished_entry if known else None
        return Position(*begun.reached) if begun and begun.reached else None

    def _resumable_entry(self, path: str, entry: Entry | None, stamp: Stamp) -> Entry | None:
        """Return the entry of a split file if it can resume at the end of an earlier run."""
        if entry is None or entry.reached is None or not self._settings.is_resuming:
            return None
        can = stamp.describes_same_file(entry.stamp) and self._can_skip is not False
        return entry if can and self._is_unchanged(path, entry) else None

    def _decide(
        self, path: str, entry: Entry | None, stamp: Stamp | None, gone: Mapping[_StampKey, str]
    ) -> _Skip | Failure | None:
        verdict: _Skip | Failure | None = None
        is_likely_to_fail = False
        if stamp is None:  # the reader reports the reason
            is_likely_to_fail = path != STDIN and not _exists(path)
        elif entry is None:
            verdict = self._decide_new(path, stamp, gone)
        elif entry.outcome == "failed" and not entry.written:
            is_likely_to_fail = stamp.describes_same_file(entry.stamp)
        else:
            verdict = self._decide_known(
                path, entry, is_same=stamp.describes_same_file(entry.stamp)
            )
        if verdict is None and not is_likely_to_fail and self._can_skip is None:
            self._can_skip = False
        return verdict

    def _refuse_added(self, path: str, replay: Replay) -> Failure | None:
        """Return the failure of a dead letter file with records that another replay has added."""
        if not self._appends or self._settings.allow_duplicates:
            return None
        added = replay.added_records()
        if not added:
            return None
        first = added[0]
        return _failure(
            path,
            f"{len(added):,} of its {format_count(len(replay), 'record')} were added from a dead "
            f"letter file before (the first is record {first.record:,} of {first.file}): remove "
            "their lines, or let --resume --dead-letter FILE write those that are still rejected; "
            "--allow-duplicates adds all of them again",
        )

    def _decide_known(self, path: str, entry: Entry, *, is_same: bool) -> _Skip | Failure | None:
        if self._repeats_rejected and entry.rejected:
            return None
        if is_same and self._settings.is_resuming:
            return self._skip(path, entry, DONE) if entry.reached is None else None
        if self._appends and entry.written and not self._settings.allow_duplicates:
            advice = _DUPLICATE_ADVICE if entry.reached is None else _BEGUN_ADVICE
            return _failure(path, advice if is_same else _CHANGED)
        return self._skip(path, entry, NOT_FAILED) if self._settings.retry_failed else None

    def _skip(self, path: str, entry: Entry, reason: str) -> _Skip | None:
        can = self._is_unchanged(path, entry)
        if self._can_skip is None:
            self._can_skip = can
        return _Skip(reason, entry) if can and self._can_skip else None

    def _decide_new(
        self, path: str, stamp: Stamp, gone: Mapping[_StampKey, str]
    ) -> _Skip | Failure | None:
        if self._settings.retry_failed:
            return _Skip(NOT_FAILED, None)
        earlier = gone.get(stamp[:2]) if stamp.digest is None else gone.get(stamp.digest)
        if earlier is None:
            return None
        alike = "size and time" if stamp.digest is None else "content"
        return _failure(
            path,
            f"it seems to be {display_path(earlier)} under another name (it has the same {alike}), "
            "and the rows of that file are in the table already: --allow-duplicates adds them "
            "again",
        )

    def _gone_inputs(
        self,
        names: Sequence[str],
        stamps: Sequence[Stamp | None],
        entries: Mapping[str, Entry],
        naming: InputNaming,
    ) -> Mapping[_StampKey, str]:
        """Return inputs that are gone, and added rows, by the stamps that new inputs have now.

        A stamp with a digest is the same as one with an equal digest, or as one without any that
        has its size and time.
        """
        settings = self._settings
        if not self._appends or settings.allow_duplicates or settings.retry_failed:
            return {}
        new = [
            stamp
            for name, stamp in zip(names, stamps, strict=True)
            if stamp is not None and name not in entries
        ]
        if not new:
            return {}
        digests: dict[tuple[int, int], list[str]] = {}
        for stamp in new:
            if stamp.digest is not None:
                digests.setdefault(stamp[:2], []).append(stamp.digest)
        gone: dict[_StampKey, str] = {}
        put_away = set(map(naming.name, tuple(self.put_away)))
        for earlier, stamp in (*self._ledger.find(new), *self._unsaved()):
            if earlier in put_away:
                continue
            keys: list[_StampKey] = [stamp[:2]]
            keys += digests.get(stamp[:2], ()) if stamp.digest is None else [stamp.digest]
            if gone.keys() >= set(keys):
                continue
            before = naming.path(earlier)
            if before is not None and not is_object_url(before) and _is_gone(before):
                gone.update(dict.fromkeys(keys, earlier))
        return gone

    def _unsaved(self) -> Iterator[tuple[str, Stamp]]:
        """Yield the inputs that were admitted, and whose entries are not written yet."""
        for known in tuple(self._known.values()):  # another thread takes them out
            yield known.identity, known.stamp


def stamp_of(path: str, *, by_content: bool) -> Stamp | None:
    """Return the stamp of a file or object, None if it has none.

    The ETag of an object takes the place of a digest of its content.
    """
    if path == STDIN:
        return None
    if isinstance(path, ObjectPath):
        return None if path.size is None else Stamp(path.size, path.changed_ns, path.etag)
    if isinstance(path, ArchiveMember):
        return _member_stamp(path.info, by_content=by_content)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        digest = _digest(path) if by_content else None
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns, digest)


def _member_stamp(member: MemberInfo, *, by_content: bool) -> Stamp | None:
    """Return the stamp of a member of an archive, None if it cannot be read.

    A zip has the CRC of each member. A tar has only times, which many programs set to a constant:
    there a member is the same as long as the whole archive is.
    """
    if member.problem is not None:
        return None
    digest = None
    if member.crc is not None:
        digest = f"crc32 {member.crc:08x} of {member.size} bytes"
        digest += "" if by_content else f" written {member.written}"
    elif by_content:
        digest = _archive_digest(member.archive, member.changed_ns)
        if digest is None:
            return None
    return Stamp(member.size, member.changed_ns, digest)


@lru_cache(maxsize=16)
def _archive_digest(path: str, _: int) -> str | None:
    """Return the digest of an archive, computed once for all its members."""
    try:
        return _digest(path)
    except OSError:
        return None


def _is_gone(path: str) -> bool:
    """Whether nothing is at `path`. Below a file, which may be an archive, nothing is known."""
    try:
        os.lstat(path)
    except NotADirectoryError:
        return False
    except OSError:
        return True
    return False


def _exists(path: str) -> bool:
    return not isinstance(path, ObjectPath) and os.path.exists(path)


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _failure(path: str, message: str) -> Failure:
    return Failure(display_path(path), "sink", message)


def _make_part(start: int, verdicts: Sequence[_Skip | Failure | None]) -> Part:
    errors: dict[int, Failure] = {}
    skipped: dict[int, str] = {}
    part = prepared_part(start, len(verdicts), errors, skipped)
    for place, verdict in enumerate(verdicts):
        if isinstance(verdict, Failure):
            errors[place] = verdict
        elif verdict is not None:
            skipped[place] = verdict.reason
            if verdict.entry is not None:
                part.entries[place] = verdict.entry
    return part


class AdmittedLane:
    """A lane that yields prepared parts, and passes other batches to the lane inside."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        if batch.prepared_part is not None:
            yield batch.prepared_part
            return
        async for part in self._lane.run(batch):
            yield part


_REPEAT_ADVICE = (
    "name a key in [sink], so that rows replace rows of the same key, set mode to replace the "
    "whole table, or add the rows again with --allow-duplicates"
)
_BOOKMARK_ADVICE = f"its rows are in the table already: {_REPEAT_ADVICE}"
_FULL_REFRESH = (
    "some of its rows are in the table, and the earlier run cannot be resumed: its pages are "
    "not stable, or are requested differently now. "
    f"{_REPEAT_ADVICE[0].upper()}{_REPEAT_ADVICE[1:]}"
)

_FORMER_NAME = (
    "an earlier run has kept one state for all URLs that differ only in what is hidden, so it is "
    "unknown which of their rows are in the table: "
    f"{_REPEAT_ADVICE}"
)
_SAME_NAME = (
    "another source of this run leads to this URL, too, and both would share one state in the "
    "ledger: leave it to one of them, or give each a pipeline file and a table of its own"
)


class BookmarkAdmission:
    """Decides where feeds resume, and which are refused; used by one thread at a time.

    It adds the identity of each feed that is read to `known`. `appends`: the target keeps earlier
    rows, and no row replaces another.
    """

    def __init__(
        self, settings: LedgerSettings, ledger: Ledger, known: KnownInputs, *, appends: bool
    ) -> None:
        self._settings, self._ledger, self._known = settings, ledger, known
        self._appends = appends and not settings.force and not settings.allow_duplicates
        self._names: set[str] = set()  # of the feeds so far

    def admit(self, feed: Feed) -> Bookmark | Failure | None:
        """Return the bookmark of a feed (None: its beginning), or the failure if it is refused.

        Raises the errors of the database of the ledger.
        """
        if feed.name in self._names:
            return Failure(feed.name, "sink", _SAME_NAME)
        self._names.add(feed.name)
        stamp = Stamp(0, 0, feed.settings_digest)
        entry = self._ledger.lookup([feed.name]).get(feed.name)
        if entry is None and self._appends and self._may_have_rows(feed):
            return Failure(feed.name, "sink", _FORMER_NAME)
        bookmark = self._bookmark(entry, stamp)
        goes_on = bookmark is not None and (bookmark.mark is not None or bookmark.is_last)
        if entry is not None and entry.written and self._appends and not goes_on:
            is_done = entry.outcome in ("success", "partial")
            if not (is_done and feed.is_incremental and bookmark is not None):
                return Failure(feed.name, "sink", _BOOKMARK_ADVICE if is_done else _FULL_REFRESH)
        unfinished = entry if goes_on else None
        self._known[feed.name] = KnownInput(feed.name, stamp, unfinished, earlier_entry=entry)
        return bookmark

    def _may_have_rows(self, feed: Feed) -> bool:
        """Whether an earlier version has added rows of this feed, or of another with its name."""
        if feed.former_name == feed.name:
            return False
        former = self._ledger.lookup([feed.former_name]).get(feed.former_name)
        return former is not None and bool(former.written)

    def _bookmark(self, entry: Entry | None, stamp: Stamp) -> Bookmark | None:
        """Return an entry's bookmark, if the feed still has the same form."""
        if entry is None or entry.bookmark is None or self._settings.force:
            return None
        if not stamp.describes_same_file(entry.stamp):
            return None
        bookmark = msgspec.json.decode(entry.bookmark, type=Bookmark)
        if bookmark.mark is not None or (bookmark.is_last and entry.outcome == "begun"):
            return bookmark
        return structs.replace(bookmark, newest=None, is_last=False)
