"""Where a stream's windows go, what is kept beside them, and how another process goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.sinks.target import place_of
from asyncbatch.streams.clashes import check_places
from asyncbatch.streams.guarded import GuardedTarget
from asyncbatch.streams.outflow import Outflow
from asyncbatch.streams.targets import make_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncbatch.streams.chunks import Source
    from asyncbatch.streams.keeper import StreamKeeper
    from asyncbatch.streams.side_file import SideFile
    from asyncbatch.streams.stream import Stream


class Delivery(Struct, frozen=True):
    """Where windows go (`to`, None: nowhere but to who asked), and from where to go on.

    A `checkpoint` is kept `every` so many microseconds.
    """

    to: str | None = None
    table: str | None = None
    checkpoint: str | None = None
    every: int = 10_000_000


class Delivering:
    """All that a stream writes: its target, its side files by their options, its checkpoint.

    `on_failure` is called once the target is lost. Raises UsageError.
    """

    def __init__(
        self,
        delivery: Delivery,
        stream: Stream,
        sources: Sequence[Source],
        files: Mapping[str, SideFile | None],
        on_failure: Callable[[], None],
    ) -> None:
        to = delivery.to
        written = {name: None if file is None else file.path for name, file in files.items()}
        written |= {
            "--checkpoint": delivery.checkpoint,
            "--to": None if to is None else place_of(to)[1],
        }
        check_places([source.name for source in sources], written)
        target = None if to is None else make_target(to, stream, table=delivery.table)
        self._target = None if target is None else GuardedTarget(target)
        self.outflow = None if self._target is None else Outflow(stream, self._target, on_failure)
        """Takes windows, if there is a target other than standard output."""
        self._files = {name: file for name, file in files.items() if file is not None}
        self.keeper = self._make_keeper(delivery, stream, sources)

    def open(self) -> bool:
        """Begin what is written, or go on with it; return which of both.

        All sources have joined the stream. Raises UsageError, LockHeldError.
        """
        if self.keeper is not None:
            return self.keeper.open()
        if self._target is not None:
            self._target.open()
        for file in self._files.values():
            file.open()
        return False

    async def finish(self, *, ended: bool) -> None:
        """End; what is complete only at its end is put in place if the stream `ended`.

        Raises SinkError.
        """
        try:
            if self.outflow is not None:
                await self.outflow.finish(ended=ended)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of what could not be opened, or was beside that."""
        for file in self._files.values():
            file.close()
        if self.keeper is not None:
            self.keeper.close()

    def _make_keeper(
        self, delivery: Delivery, stream: Stream, sources: Sequence[Source]
    ) -> StreamKeeper | None:
        if delivery.checkpoint is None:
            return None
        from asyncbatch.streams.checkpoint import CheckpointFile  # noqa: PLC0415 - if asked for
        from asyncbatch.streams.configuration import configuration  # noqa: PLC0415
        from asyncbatch.streams.keeper import StreamKeeper  # noqa: PLC0415

        places = {name: file.path for name, file in self._files.items()}
        told = configuration(
            stream.settings,
            [source.name for source in sources],
            {
                "--to": None if self._target is None else self._target.name,
                "--table": delivery.table,
                **places,
            },
        )
        return StreamKeeper(
            CheckpointFile(delivery.checkpoint, told),
            delivery.every,
            stream,
            sources,
            target=self._target,
            files=list(self._files.values()),
        )
