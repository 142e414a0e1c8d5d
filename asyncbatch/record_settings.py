"""What is done to records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.settings import FileWorkSettings

if TYPE_CHECKING:
    from asyncbatch.sinks.target import Target
    from asyncbatch.transforms.schema import SchemaSource


class RecordWorkSettings(Struct, frozen=True):
    """What is done to each record: where records are in a document, transforms, a target.

    `records` is the JSON Pointer of the array whose elements are records, `whole` takes each
    document as one. Transforms run in the order jq, call, schema; if a function is async, on
    the event loop, for `call_concurrency` records at a time. `letters` keeps what a dead
    letter file needs, `replay` is the path of one that is read again.
    """

    files: FileWorkSettings = FileWorkSettings()
    records: str | None = None
    whole: bool = False
    jq: tuple[str, ...] = ()
    jq_env: bool = False
    jq_lossy: bool = False
    call: tuple[str, ...] = ()
    call_is_async: bool = False
    call_concurrency: int = 100
    schema: SchemaSource | None = None
    target: Target | None = None
    letters: bool = False
    replay: str | None = None
    tracebacks: bool = False
