"""What is done to records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.settings import FileWorkSettings
from asyncbatch.transforms.specs import CallSpec, FieldsSpec, FunctionSpec, JqSpec

if TYPE_CHECKING:
    from asyncbatch.sinks.target import Target
    from asyncbatch.transforms.specs import TransformSpec


PATIENCE = 1.0
"""Seconds that rows wait for more of them, unless told otherwise."""
LEAST_PATIENCE = 0.01


class RecordWorkSettings(Struct, frozen=True):
    """What is done to each record: where records are in a document, transforms, a target.

    `records` is the JSON Pointer of the array whose elements are records, `whole` takes each
    document as one. Transforms run in the order given; if a function is async, on the event
    loop, for `call_concurrency` records at a time. Of what comes of them only the first with each
    key is written if `dedupe` names the paths of one. `letters` keeps what a dead
    letter file needs, `replay` is the path of one that is read again. Rows wait up to `patience`
    seconds to be loaded together; those of standard input also to be handed on by its worker.
    `newest` is the path of a field whose largest value is found, for a source that is asked for
    what is new.
    """

    files: FileWorkSettings = FileWorkSettings()
    records: str | None = None
    whole: bool = False
    transforms: tuple[TransformSpec, ...] = ()
    dedupe: tuple[str, ...] = ()
    call_is_async: bool = False
    call_concurrency: int = 100
    target: Target | None = None
    letters: bool = False
    replay: str | None = None
    tracebacks: bool = False
    patience: float = PATIENCE
    newest: str | None = None

    @property
    def reads_text(self) -> bool:
        """Whether the first transform takes a record's text instead of its value."""
        return isinstance(next(iter(self.transforms), None), JqSpec)

    @property
    def changes_records(self) -> bool:
        """Whether places in what becomes of a record may be others than in the record."""
        changing = JqSpec | CallSpec | FunctionSpec | FieldsSpec
        return any(isinstance(spec, changing) for spec in self.transforms)

    @property
    def runs_programs(self) -> bool:
        """Whether something runs that we do not know, and that may never end."""
        return any(isinstance(spec, JqSpec | CallSpec) for spec in self.transforms)

    @property
    def stays_here(self) -> bool:
        """Whether no other process can do it, for want of a function."""
        return self.call_is_async or any(isinstance(one, FunctionSpec) for one in self.transforms)
