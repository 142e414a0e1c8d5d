"""The checkpoint of a stream, and its file."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from asyncbatch.core.records import Position, display_path
from asyncbatch.core.tally import StreamTally  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.state.lock import Lock
from asyncbatch.storage.append import AppendPosition  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.storage.atomic import AtomicFile
from asyncbatch.windows.events import WindowsState  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_NOTHING = "nothing"


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield the differences between two configurations as text."""
    for name in dict.fromkeys((*before, *now)):
        was, has_become = before.get(name) or _NOTHING, now.get(name) or _NOTHING
        if was != has_become:
            yield f"{name} was {was}, and is now {has_become}"


class SourceState(Struct, frozen=True):
    """The state of one source."""

    top: int  # its largest event time, in microseconds since the epoch
    is_over: bool = False
    position: Any = None  # None: the source cannot be replayed
    file: str = ""  # the file at the position
    held: bytes = b""  # the beginning of an incomplete line, after `at`
    at: Position = field(default_factory=Position)
    arrived: int = 0  # time of the last event, if event time is the time of arrival
    is_skipped: bool = False  # whether the rest of the file is skipped: it is not JSON Lines


class StreamState(Struct, frozen=True):
    """The state of a stream: watermark, sources, windows and counts."""

    watermark: int
    sources: list[SourceState]  # in the order in which they joined
    windows: WindowsState
    tally: StreamTally


_VERSION = 1


class Checkpoint(Struct, frozen=True):
    """The content of a checkpoint file: the state of a stream and its outputs."""

    configuration: dict[str, str]  # options that must be the same on resume
    stream: StreamState
    target: Any  # the position of the target
    files: list[AppendPosition]  # the positions of the other files that the stream appends to
    is_stopping: bool  # the open windows were written as partial after this checkpoint


class _CheckpointHeader(Struct, frozen=True, tag_field="kind", tag="asyncbatch checkpoint"):
    """The first line of the file."""

    version: int
    digest: str


class CheckpointFile:
    """The file of a stream's last checkpoint, locked for this process.

    Call `open` first. Each checkpoint replaces the one before, as a whole. The content is JSON:
    data, never code. All checkpoints belong to streams with the same `configuration`.
    """

    path: str
    configuration: dict[str, str]

    def __init__(self, path: str, configuration: dict[str, str]) -> None:
        self.path, self.configuration = path, configuration
        self._lock = Lock(f"{path}.lock", "--checkpoint")

    def open(self) -> Checkpoint | None:
        """Lock the file and return its checkpoint, None if there is none yet.

        Raises LockHeldError, and UsageError if the file is damaged, belongs to another stream, or
        is not a regular file: a device may have no end, and a pipe no writer.
        """
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise UsageError(f"--checkpoint {display_path(self.path)} is not a regular file")
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
                f"the checkpoint {self.path} belongs to another stream: {'; '.join(changed)}. Use "
                "it with the same options, or name another file to start again"
            )
        return found

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint. Raises SinkError."""
        body = _encode(checkpoint)
        head = msgspec.json.encode(_CheckpointHeader(_VERSION, _digest(body)))
        file = AtomicFile(self.path, is_private=True)
        # Always the same name, so that killed processes leave only one file.
        file.keep_unfinished(f"{file.final_path}.new")
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
        """Release the lock."""
        self._lock.release()

    def _read(self, head: bytes, body: bytes) -> Checkpoint:
        try:
            header = msgspec.json.decode(head, type=_CheckpointHeader)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UsageError(
                f"{self.path} is not a checkpoint, but has content: name another file"
            ) from None
        if header.version != _VERSION:
            raise self.version_error(f"its format is {header.version}")
        if header.digest != _digest(body):
            raise UsageError(
                f"the checkpoint {self.path} is damaged: its content has changed since it was "
                "written; name another file to start again"
            )
        try:
            return _decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self.version_error(str(error)) from None

    def version_error(self, reason: str) -> UsageError:
        """Return the error for an undamaged checkpoint that this version cannot continue."""
        return UsageError(
            f"the checkpoint {self.path} was written by another version of asyncbatch ({reason}): "
            "use that version, or name another file to start again"
        )


def _encode(checkpoint: Checkpoint) -> bytes:
    try:
        return msgspec.json.encode(checkpoint)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return msgspec.json.encode(_change_names(checkpoint, _hide_name))


def _decode(body: bytes) -> Checkpoint:
    checkpoint = msgspec.json.decode(body, type=Checkpoint)
    return _change_names(checkpoint, _reveal_name) if rb"\u0000" in body else checkpoint


def _change_names(checkpoint: Checkpoint, change: Callable[[str], str]) -> Checkpoint:
    """Return the checkpoint with all texts of the sources' positions changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, dict):
            return {name: changed(one) for name, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, list | tuple) else value

    sources = [
        replace(one, file=changed(one.file), position=changed(msgspec.to_builtins(one.position)))
        for one in checkpoint.stream.sources
    ]
    return replace(checkpoint, stream=replace(checkpoint.stream, sources=sources))


_HIDDEN_NAME = re.compile(r"\0((?:[0-9a-f]{2})+)")


def _hide_name(name: str) -> str:
    """Return a name that is not UTF-8 as its bytes, after a zero, which no file name has."""
    is_text = display_path(name) == name
    return name if is_text else f"\0{os.fsencode(name).hex()}"


def _reveal_name(name: str) -> str:
    found = _HIDDEN_NAME.fullmatch(name)
    return os.fsdecode(bytes.fromhex(found[1])) if found else name


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
