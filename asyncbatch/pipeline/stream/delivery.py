"""The delivery of a stream: closed windows to their target, side files and the checkpoint."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.system import stdout_file
from asyncbatch.errors import OutputClashError
from asyncbatch.pipeline.output_guard import check_live_outputs
from asyncbatch.pipeline.stream.window_writer import WindowWriter
from asyncbatch.sinks.target import parse_location
from asyncbatch.sinks.windows import make_target
from asyncbatch.sources.aliases import file_id
from asyncbatch.transforms.spec import files_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncbatch.pipeline.stream.checkpointer import Checkpointer
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.storage.append import AppendFile


_NONE: Mapping[str, str] = MappingProxyType({})


class DeliverySettings(Struct, frozen=True):
    """The target of windows, and the checkpoint."""

    to: str | None = None  # the target; None: the caller takes the windows
    table: str | None = None
    checkpoint: str | None = None
    every: int = 10_000_000  # microseconds between checkpoints
    csv_safe: bool = False  # whether cells of a CSV file that would be formulas become texts


def check_stream_outputs(
    delivery: DeliverySettings,
    sources: Iterable[str],
    files: Mapping[str, str | None],
    reads: Iterable[str] = (),
) -> None:
    """Raise UsageError if two outputs are one file, or one is in a source.

    `files` maps the names of options to their files, other than those of `delivery`. `reads` are
    other files that must stay as they are.
    """
    sources, printed = list(sources), stdout_file()
    own = None if printed is None else file_id(printed)
    if own is not None and own in map(file_id, filter(os.path.isfile, sources)):
        raise OutputClashError(f"{printed} is a source, and standard output is written to it")
    form, path = (None, None) if delivery.to is None else parse_location(delivery.to)
    target = None if form in ("stdout", "postgres") else path
    check_live_outputs(
        sources, {**files, "--checkpoint": delivery.checkpoint, "--to": target}, reads
    )


class StreamDelivery:
    """All outputs of a stream: its target, side files and checkpoint.

    Call `open` first, and `finish` at the end, or `abandon` if the start fails. `files` maps the
    name of an option to its side file, `other_outputs` to one that the caller writes; it has read
    the files `reads`. `on_failure` is called when the target is lost. Raises UsageError.
    """

    def __init__(
        self,
        delivery: DeliverySettings,
        stream: StreamCore,
        sources: Sequence[LiveSource],
        files: Mapping[str, AppendFile | None],
        on_failure: Callable[[], None],
        *,
        other_outputs: Mapping[str, str] = _NONE,
        reads: Iterable[str] = (),
    ) -> None:
        to = delivery.to
        written = {name: None if file is None else file.path for name, file in files.items()}
        read = [*reads, *files_read(stream.settings.transforms)]
        names = [source.name for source in sources]
        check_stream_outputs(delivery, names, {**written, **other_outputs}, read)
        target = (
            None
            if to is None
            else make_target(to, stream.schema, table=delivery.table, csv_safe=delivery.csv_safe)
        )
        # None if the windows go to standard output, or to the caller.
        self.writer: WindowWriter | None = (
            None if target is None else WindowWriter(stream, target, on_failure)
        )
        self._files = {name: file for name, file in files.items() if file is not None}
        self.checkpointer: Checkpointer | None = self._make_checkpointer(delivery, stream, sources)

    def open(self) -> bool:
        """Start or resume the outputs; return whether they are resumed.

        All sources have joined the stream. Raises UsageError, LockHeldError.
        """
        if self.checkpointer is not None:
            return self.checkpointer.open()
        if self.writer is not None:
            self.writer.open()
        for file in self._files.values():
            file.open()
        return False

    async def finish(self, *, ended: bool) -> None:
        """Finish the target, and release the outputs. Raises SinkError.

        `ended`: the stream ended without an error, so a file that is complete only now is put in
        place.
        """
        try:
            if self.writer is not None:
                await self.writer.finish(ended=ended)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the outputs after a failed start."""
        for file in self._files.values():
            file.close()
        if self.checkpointer is not None:
            self.checkpointer.close()

    def _make_checkpointer(
        self, delivery: DeliverySettings, stream: StreamCore, sources: Sequence[LiveSource]
    ) -> Checkpointer | None:
        if delivery.checkpoint is None:
            return None
        from asyncbatch.config.fingerprint import stream_configuration
        from asyncbatch.pipeline.stream.checkpointer import Checkpointer
        from asyncbatch.state.checkpoint import CheckpointFile

        places = {name: file.path for name, file in self._files.items()}
        told = stream_configuration(
            stream.settings,
            [source.name for source in sources],
            {
                "--to": None if self.writer is None else self.writer.target.name,
                "--table": delivery.table,
                "--csv-safe": "given" if delivery.csv_safe else None,
                **places,
            },
        )
        return Checkpointer(
            CheckpointFile(delivery.checkpoint, told),
            delivery.every,
            stream,
            sources,
            writer=self.writer,
            files=list(self._files.values()),
        )
