"""The dead letter file: rejected records and failed files, for a later run."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError, valid_text
from asyncbatch.formats.decoder import encode
from asyncbatch.storage.opener import open_output

if TYPE_CHECKING:
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.records import Failure
    from asyncbatch.core.settings import StoreSettings

# The failure kinds of records that are not JSON. Their text is kept as a JSON string.
INVALID_TEXT_KINDS = ("invalid_json", "encoding", "too_deep")


class DeadLetter(msgspec.Struct, frozen=True):
    """A line of a dead letter file, with the fields that a later run reads.

    A failed file has no data; a later run reads the whole file again.
    """

    file: str
    file_base64: str | msgspec.UnsetType = msgspec.UNSET  # the name of a failed file, if not UTF-8
    kind: str = ""
    record: int | None = None
    line: int | None = None
    pointer: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # JSON, or a string of other text
    data_base64: str | msgspec.UnsetType = msgspec.UNSET  # text that is not UTF-8

    @property
    def path(self) -> str:
        """The path of the file. Raises ValueError."""
        if isinstance(self.file_base64, str):
            return os.fsdecode(base64.b64decode(self.file_base64, validate=True))
        return self.file

    @property
    def is_record(self) -> bool:
        """Whether the line is for a record, not for a whole file."""
        return self.data is not msgspec.UNSET or self.data_base64 is not msgspec.UNSET

    def text(self) -> bytes:
        """Return the text of the record, also if it is not JSON. Raises ValueError."""
        if isinstance(self.data_base64, str):
            return base64.b64decode(self.data_base64, validate=True)
        data = bytes(self.data) if isinstance(self.data, msgspec.Raw) else b""
        if self.kind in INVALID_TEXT_KINDS and data.startswith(b'"'):
            return msgspec.json.decode(data, type=str).encode()
        return data


read_dead_letter = msgspec.json.Decoder(DeadLetter).decode


def is_dead_letter(line: bytes) -> bool:
    """Whether a line is a dead letter."""
    try:
        return bool(read_dead_letter(line).kind)
    except (msgspec.DecodeError, ValueError):
        return False


def record_dead_letter(failure: Failure, text: bytes | msgspec.Raw, *, bad: bool = False) -> bytes:
    """Return the line for a rejected record. `bad`: its text is not JSON."""
    if not bad:
        data = msgspec.Raw(msgspec.json.format(text, indent=-1))
        return _dead_letter(failure, {"data": data})
    try:
        return _dead_letter(failure, {"data": bytes(text).decode()})
    except UnicodeDecodeError:
        return _dead_letter(failure, {"data_base64": base64.b64encode(bytes(text)).decode()})


def file_dead_letter(failure: Failure, path: str | None = None) -> bytes:
    """Return the line for a failed file. `path` is kept if it is not UTF-8."""
    kept: dict[str, str] = {}
    if path is not None and valid_text(path) != path:
        with suppress(UnicodeEncodeError):  # no file has this name
            kept["file_base64"] = base64.b64encode(os.fsencode(path)).decode()
    return _dead_letter(failure, kept)


def _dead_letter(failure: Failure, data: dict[str, Any]) -> bytes:
    fields = {
        "file": failure.file,
        "record": failure.record,
        "line": failure.line,
        "kind": failure.kind,
        "message": failure.message,
        "pointer": failure.pointer if isinstance(failure.pointer, str) else None,
    }
    return encode({**fields, **data}) + b"\n"


def failed_files(path: str) -> list[str]:
    """Return the failed files that a dead letter file lists, each once.

    Raises OSError. Raises UsageError if standard input failed, which cannot be read again, and for
    a file of other lines, each of which would fail.
    """
    found: dict[str, None] = {}
    is_empty, is_ours = True, False
    with open(path, "rb") as lines:
        for line in lines:
            is_empty = is_empty and not line.strip()
            with suppress(
                msgspec.DecodeError, ValueError
            ):  # an invalid line is reported when its records are read
                dead_letter = read_dead_letter(line)
                is_ours = True
                if not dead_letter.is_record:
                    found[dead_letter.path] = None
    if not (is_empty or is_ours):
        raise UsageError(
            f"{path} is not a dead letter file: no line of it is an object with the file of a "
            "failure, as --dead-letter writes them"
        )
    if STDIN in found:
        raise UsageError(
            f"{path} has a line for standard input, which failed as a whole and cannot be read "
            "again: remove the line, and pipe the input in again"
        )
    return list(found)


class DeadLetterFile:
    """The dead letter file of one run. It replaces the file of an earlier run."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        self._file = open_output(path, stores, is_private=True)

    def open(self) -> None:
        """Start writing. Raises UsageError if the file cannot be written."""
        self._file.open()

    def write(self, dead_letters: bytes) -> None:
        """Write encoded lines. Raises SinkError."""
        if dead_letters:
            self._file.write(dead_letters)

    def add(self, found: BatchPart) -> None:
        """Write the dead letters of a part. Raises SinkError."""
        part = found.part
        places = (place for place, _ in part.rejections)
        lines = list(zip(places, part.dead_letters, strict=True))
        lines += [
            (place, file_dead_letter(failure, found.path(place)))
            for place, failure in part.errors.items()
            if failure.record is None
        ]
        lines += [(place, entry.letters) for place, entry in part.entries.items() if entry.letters]
        if lines:
            self._file.write(b"".join(line for _, line in sorted(lines, key=itemgetter(0))))

    def publish(self) -> None:
        """Put the file in its place before its end, if it is local. Raises SinkError."""
        self._file.publish()

    def finish(self) -> None:
        """Put the file in its place, also after an interrupted run. Raises SinkError."""
        self._file.commit()

    def discard(self) -> None:
        """Delete the new lines. An earlier file at the path stays as it was."""
        self._file.discard()
