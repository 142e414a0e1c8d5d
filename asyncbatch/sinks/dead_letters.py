"""The dead letter file: rejected records and failed files, kept for another run."""

from __future__ import annotations

import base64
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.storage.opener import open_output

if TYPE_CHECKING:
    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.records import Failure
    from asyncbatch.core.settings import StoreSettings

# kinds of failure without a JSON value: the text is kept as a string
INVALID_TEXT_KINDS = ("invalid_json", "encoding", "too_deep")


class DeadLetter(msgspec.Struct, frozen=True):
    """A line of a dead letter file: the fields for another run.

    `data` is missing for a failed file, which is read again as a whole.
    """

    file: str
    kind: str = ""
    record: int | None = None
    line: int | None = None
    pointer: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_record(self) -> bool:
        """Whether this is a record, and not a whole file."""
        return self.data is not msgspec.UNSET or self.data_base64 is not msgspec.UNSET

    def text(self) -> bytes:
        """Return the record's text, be it good JSON or not. Raises ValueError."""
        if isinstance(self.data_base64, str):
            return base64.b64decode(self.data_base64, validate=True)
        data = bytes(self.data) if isinstance(self.data, msgspec.Raw) else b""
        if self.kind in INVALID_TEXT_KINDS and data.startswith(b'"'):
            return msgspec.json.decode(data, type=str).encode()
        return data


read_dead_letter = msgspec.json.Decoder(DeadLetter).decode


def record_dead_letter(failure: Failure, text: bytes | msgspec.Raw, *, bad: bool = False) -> bytes:
    """Return the line for a rejected record; `bad` if its text is not JSON."""
    if not bad:
        data = msgspec.Raw(msgspec.json.format(text, indent=-1))
        return _dead_letter(failure, {"data": data})
    try:
        return _dead_letter(failure, {"data": bytes(text).decode()})
    except UnicodeDecodeError:
        return _dead_letter(failure, {"data_base64": base64.b64encode(bytes(text)).decode()})


def file_dead_letter(failure: Failure) -> bytes:
    """Return the line for a failed file."""
    return _dead_letter(failure, {})


def _dead_letter(failure: Failure, data: dict[str, Any]) -> bytes:
    told = {
        "file": failure.file,
        "record": failure.record,
        "line": failure.line,
        "kind": failure.kind,
        "message": failure.message,
        "pointer": failure.pointer if isinstance(failure.pointer, str) else None,
    }
    return encode({**told, **data}) + b"\n"


def failed_files(path: str) -> list[str]:
    """Return the failed files in a dead letter file, each once.

    Raises OSError; UsageError for a file that cannot be read again.
    """
    found: dict[str, None] = {}
    with open(path, "rb") as lines:
        for line in lines:
            with suppress(msgspec.DecodeError, ValueError):  # raised when records are read
                dead_letter = read_dead_letter(line)
                if not dead_letter.is_record:
                    found[dead_letter.file] = None
    if STDIN in found:
        raise UsageError(
            f"{path} says that standard input failed as a whole: that cannot be read again; take "
            "its line out, and pipe it in once more"
        )
    return list(found)


class DeadLetterFile:
    """The dead letter file of one run. It replaces an earlier run's."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        self._file = open_output(path, stores)

    def open(self) -> None:
        """Begin. Raises UsageError if the file cannot be written."""
        self._file.open()

    def write(self, dead_letters: bytes) -> None:
        """Write lines as they are. Raises SinkError."""
        if dead_letters:
            self._file.write(dead_letters)

    def add(self, found: BatchPart) -> None:
        """Write the dead letters of a part. Raises SinkError."""
        part = found.part
        places = (place for place, _ in part.rejections)
        lines = list(zip(places, part.dead_letters, strict=True))
        lines += [
            (place, file_dead_letter(failure))
            for place, failure in part.errors.items()
            if failure.record is None
        ]
        lines += [(place, entry.letters) for place, entry in part.entries.items() if entry.letters]
        if lines:
            self._file.write(b"".join(line for _, line in sorted(lines, key=itemgetter(0))))

    def finish(self) -> None:
        """Put the file in its place: also of a run that was cut short. Raises SinkError."""
        self._file.commit()

    def discard(self) -> None:
        """Leave the file as it was."""
        self._file.discard()
