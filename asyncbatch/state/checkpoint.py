"""Checkpoint files of streams."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from asyncbatch.core.records import Position
from asyncbatch.core.tally import StreamTally  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.state.lock import Lock
from asyncbatch.storage.append import AppendPosition  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.storage.atomic import AtomicFile
from asyncbatch.windows.events import WindowsState  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NOTHING = "nothing"


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield the differences between two configurations, as text."""
    for name in dict.fromkeys((*before, *now)):
        was, has_become = before.get(name) or _NOTHING, now.get(name) or _NOTHING
        if was != has_become:
            yield f"{name} was {was}, and is now {has_become}"


class SourceState(Struct, frozen=True):
    """The state of one source: its largest time, and its position if it can be replayed."""

    top: int
    is_over: bool = False
    position: Any = None
    file: str = ""  # the file at the position
    held: bytes = b""  # the beginning of a line, after `at`
    at: Position = field(default_factory=Position)
    arrived: int = 0  # the time of the last event, if events have the time of their arrival


class StreamState(Struct, frozen=True):
    """The state of a stream, with its sources in the order in which they joined."""

    watermark: int
    sources: list[SourceState]
    windows: WindowsState
    tally: StreamTally


_VERSION = 1


class Checkpoint(Struct, frozen=True):
    """The state of a stream, and the positions of its target and side files.

    `is_stopping`: the open windows were written as partial after it.
    """

    configuration: dict[str, str]
    stream: StreamState
    target: Any
    files: list[AppendPosition]
    is_stopping: bool


class _CheckpointHeader(Struct, frozen=True, tag_field="kind", tag="asyncbatch checkpoint"):
    """The first line of the file."""

    version: int
    digest: str


class CheckpointFile:
    """Holds checkpoints, one at a time, replaced whole; for one process at a time.

    They are of streams of this `configuration`. The content is JSON, and is only ever data.
    """

    def __init__(self, path: str, configuration: dict[str, str]) -> None:
        self.path, self.configuration = path, configuration
        self._lock = Lock(f"{path}.lock", "--checkpoint")

    def open(self) -> Checkpoint | None:
        """Return the checkpoint, None if there is none yet.

        Raises LockHeldError; UsageError if the file is damaged, or of another stream.
        """
        self._lock.acquire()
        try:
            with open(self.path, "rb") as stream:
                head, _, body = stream.read().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}") from None
        found = self._read(head, body)
        if changed := list(differences(found.configuration, self.configuration)):
            raise UsageError(
                f"the checkpoint {self.path} is of another stream: {'; '.join(changed)}. Use "
                "it with the same options, or name another file to start again"
            )
        return found

    def write(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in the place of the one before. Raises SinkError."""
        body = msgspec.json.encode(checkpoint)
        head = msgspec.json.encode(_CheckpointHeader(_VERSION, _digest(body)))
        file = AtomicFile(self.path)
        file.keep_unfinished(
            f"{file.final_path}.new"
        )  # one name, so that a killed process leaves one file
        try:
            file.open()
        except UsageError as error:
            raise SinkError(str(error), self.path) from None
        try:
            file.write(head + b"\n" + body)
        except SinkError:
            file.discard()
            raise
        file.commit()

    def close(self) -> None:
        """Let others have it."""
        self._lock.release()

    def _read(self, head: bytes, body: bytes) -> Checkpoint:
        try:
            told = msgspec.json.decode(head, type=_CheckpointHeader)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UsageError(
                f"{self.path} is no checkpoint, but has content: name another file"
            ) from None
        if told.version != _VERSION:
            raise UsageError(
                f"the checkpoint {self.path} is of another version of asyncbatch: use that "
                "version, or name another file to start again"
            )
        if told.digest != _digest(body):
            raise self.damaged_error("its content has changed since it was written")
        try:
            return msgspec.json.decode(body, type=Checkpoint)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.damaged_error(str(error)) from None

    def damaged_error(self, why: str) -> UsageError:
        """Return the error that says so."""
        return UsageError(
            f"the checkpoint {self.path} is damaged: {why}; name another file to start again"
        )


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
