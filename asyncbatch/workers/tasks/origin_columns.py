"""The columns about their origin that rows get: their values, and the check that they are free."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from itertools import repeat
from operator import contains
from typing import TYPE_CHECKING, Any, Literal

from msgspec import DecodeError, Raw, Struct, defstruct
from msgspec.json import Decoder

from asyncbatch.core.origin import file_value, time_value
from asyncbatch.core.paths import ArchiveMember, ObjectPath
from asyncbatch.core.records import STDIN
from asyncbatch.formats.decoder import decode, encode_lines
from asyncbatch.formats.positions import format_pointer
from asyncbatch.sources.reader import InputOpener
from asyncbatch.storage.local import Content
from asyncbatch.transforms.base import RecordError, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.origin import OriginField
    from asyncbatch.core.records import Json
    from asyncbatch.sources.reader import Opened
    from asyncbatch.workers.tasks.part_builder import PartContents
    from asyncbatch.workers.tasks.record_slices import RecordSlice


class FileOrigin(Struct, frozen=True):
    """The origin that all records of a file have. None: not known."""

    file: str = ""
    mtime: str | None = None
    sha256: str | None = None
    loaded_at: str = ""


class OriginReader:
    """Reads the origins of files: their times, and the digests of their bytes."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        fields = {column.field for column in settings.added}
        self._reads_time, self._reads_digest = "mtime" in fields, "sha256" in fields
        self._reads_clock = "loaded_at" in fields
        self.may_block: bool = self._reads_time or self._reads_digest
        self._files = settings.files
        self._opener: InputOpener | None = None
        # the last file of which a split was read, and its version
        self._last: tuple[tuple[object, ...], FileOrigin] | None = None

    def origin(self, path: str, opened: Opened) -> FileOrigin:
        """Return the origin of the file at `path`. Raises OSError.

        `opened` is its content; a large file is read once more for its digest.
        """
        return self._read(path, opened if isinstance(opened, bytes) else None)

    def origin_of_split(self, path: str) -> FileOrigin:
        """Return the origin of a file of which a split is read. Raises OSError."""
        state = _state(path)
        if self._last is None or self._last[0] != state:
            self._last = state, self._read(path, None)
        return self._last[1]

    def origin_of_feed(self, name: str) -> FileOrigin:
        """Return the origin of records without a file: a page of an API, a program's records."""
        return FileOrigin(file_value(name), loaded_at=self._now())

    def _read(self, path: str, data: bytes | None) -> FileOrigin:
        return FileOrigin(
            file_value(path),
            _changed_at(path) if self._reads_time else None,
            self._digest(path, data) if self._reads_digest else None,
            self._now(),
        )

    def _now(self) -> str:
        return time_value(time.time_ns()) if self._reads_clock else ""

    def _digest(self, path: str, data: bytes | None) -> str | None:
        """Return the SHA-256 of a file's bytes, None for standard input and pipes."""
        if path == STDIN:
            return None
        if data is None:
            if not isinstance(path, ObjectPath | ArchiveMember) and not os.path.isfile(path):
                return None
            # An opener of its own: the members of a compressed tar share one stream.
            content = self._own_opener().open(path)
            if isinstance(content, Content):
                digest = hashlib.sha256()
                with content:
                    for chunk in content.chunks():
                        digest.update(chunk)
                return digest.hexdigest()
            data = content
        return hashlib.sha256(data).hexdigest()

    def _own_opener(self) -> InputOpener:
        self._opener = self._opener or InputOpener(self._files)
        return self._opener


def _changed_at(path: str) -> str | None:
    """Return the time of a file's last change, for a member that of its archive."""
    changed = 0
    if isinstance(path, ObjectPath):
        changed = path.changed_ns
    elif isinstance(path, ArchiveMember):
        changed = path.info.changed_ns
    elif path != STDIN:
        with suppress(OSError):  # removed since it was opened
            changed = os.stat(path).st_mtime_ns
    return time_value(changed) if changed else None


def _state(path: str) -> tuple[object, ...]:
    """Return the path and the marks of the version of a file. Raises OSError."""
    if isinstance(path, ObjectPath):
        return path, path.etag
    if isinstance(path, ArchiveMember):
        return path, path.info.changed_ns
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


class OriginColumns:
    """Adds columns about their origin to the rows of a part. Begin each file with `begin`."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        self._columns, self._run_id = settings.added, settings.run_id
        self.names: tuple[str, ...] = tuple(column.name for column in self._columns)
        self._free_decoder = _free_decoder(self.names)
        key = settings.target.key if settings.target else ()
        self._digest_key = next(
            (one.name for one in self._columns if one.field == "sha256" and one.name in key), None
        )
        self._origin = FileOrigin()

    def begin(self, origin: FileOrigin) -> None:
        """Begin the records of a file."""
        self._origin = origin

    def fit(self, rows: Sequence[Json]) -> bool:
        """Whether `check` surely accepts all of these rows; in doubt, False."""
        kinds = set(map(type, rows))
        if self._digest_key is not None and self._origin.sha256 is None:
            return False
        if kinds == {dict}:
            return not any(any(map(contains, rows, repeat(name))) for name in self.names)
        return kinds == {Raw} and self._are_free(encode_lines(rows))

    def fit_lines(self, lines: bytes) -> bool:
        """Whether `check` surely accepts each of some JSON Lines, each ended by LF."""
        if self._digest_key is not None and self._origin.sha256 is None:
            return False
        return self._are_free(lines)

    def _are_free(self, lines: bytes) -> bool:
        """Whether all of these lines are objects without fields of these names."""
        if self._free_decoder is None:
            return False
        try:
            self._free_decoder.decode_lines(lines)
        except (DecodeError, RecursionError):
            return False
        return True

    def check(self, row: Json) -> None:
        """Raise RecordError for a row that is no object, or has a field of these names."""
        if self._digest_key is not None and self._origin.sha256 is None:
            raise RecordError(
                "missing_field", f"the key field {self._digest_key!r} is null: the input is no file"
            )
        if type(row) is Raw:
            if self._are_free(bytes(row)):
                return
            row = decode(row)
        if type(row) is not dict:
            raise RecordError(
                "sink", f"columns can be added only to an object, and this is {kind_of(row)}"
            )
        for column in self._columns:
            if column.name in row:
                raise RecordError(
                    "sink",
                    f"has a field {column.name!r} already: give the added column another name, "
                    f"as --add {column.field}=NAME",
                    pointer=format_pointer((column.name,)),
                )

    def extend(
        self, contents: PartContents, places: Sequence[int], record_slice: RecordSlice
    ) -> None:
        """Add the cells of more rows, which were made of these records of a slice."""
        added = contents.added
        for name, values in self.cells(places, record_slice).items():
            if (cells := added.get(name)) is None:
                added[name] = values
            else:
                cells.extend(values)

    def cells(self, places: Sequence[int], record_slice: RecordSlice) -> dict[str, list[Any]]:
        """Return the cells of rows that were made of these records of a slice, by column."""
        cells: dict[str, list[Any]] = {}
        for column in self._columns:
            if column.field == "record":
                cells[column.name] = list(record_slice.numbers(places))
            elif column.field == "line":
                cells[column.name] = record_slice.first_lines(places)
            else:
                cells[column.name] = [self._shared(column.field, record_slice)] * len(places)
        return cells

    def _shared(self, field: OriginField, record_slice: RecordSlice) -> Any:
        """Return the value of a field that all records of a slice share."""
        if field == "run_id":
            return self._run_id
        if record_slice.file is not None and field != "loaded_at":  # from a dead letter
            return record_slice.file if field == "file" else None
        return getattr(self._origin, field)


def _free_decoder(names: Sequence[str]) -> Decoder[Any] | None:
    """Return a decoder that refuses an object with one of these fields.

    It refuses other values than objects, too, and skips all other fields, in the time that a search
    for two of the names would take. It knows each spelling of a name. None for a name that a Struct
    cannot have.
    """
    # No record has this value, so no value of these fields is accepted.
    never = Literal[os.urandom(16).hex()]  # type: ignore[valid-type]  # a new value for each process
    fields = [(f"field_{number}", never, "") for number in range(len(names))]
    renamed = {field: name for (field, _, _), name in zip(fields, names, strict=True)}
    try:
        record = defstruct("Record", fields, rename=renamed, gc=False)
    except ValueError:  # of a name with a quote, a backslash or a control character
        return None
    return Decoder(record)
