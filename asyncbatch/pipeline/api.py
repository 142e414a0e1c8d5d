"""The function `process_files`: the job of `asyncbatch run`, as an async generator."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import structs

from asyncbatch.config.job import FileSource, Job
from asyncbatch.core.records import Failure, FileResult
from asyncbatch.core.report import MAX_LISTED_FAILURES
from asyncbatch.core.retry import Retries
from asyncbatch.core.settings import MAX_UNPACKED_BYTES, FileWorkSettings, Format, StoreSettings
from asyncbatch.pipeline.run import Run
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


async def process_files(
    *paths: str | os.PathLike[str],
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    exclude: Sequence[str] = (),
    hidden: bool = False,
    follow_symlinks: bool = False,
    gitignore: bool = False,
    limit: int | None = None,
    format: Format = "auto",  # noqa: A002 - named as in pipeline files
    max_file_size: int | None = None,
    max_decompressed_size: int = MAX_UNPACKED_BYTES,
    max_window: int | None = None,
    read_ahead: int | None = None,
    batch_size: int | None = None,
    concurrency: int | None = None,
    workers: int | None = None,
    pause: float = 0.0,
    timeout: float | None = None,  # noqa: ASYNC109 - the time limit of one file, named like --timeout
    retries: int = 0,
    retry_delay: float = 0.2,
    endpoint: str | None = None,
    anonymous: bool = False,
    allow_origins: Sequence[str] = (),
) -> AsyncGenerator[FileResult, None]:
    """Process folders, files, globs and URLs of JSON; yield a result for each file.

    A bad file is a result with an `error`, never an exception. The rejected records of JSON Lines
    are in `rejections`, the first 1,000 of a file. Options mean the same as on the command line:
    sizes in bytes, times in seconds, None for an automatic choice. Closing the generator (use
    `contextlib.aclosing`) cancels the work in flight and ends the workers.

    Raises NothingMatchedError if there is no file, UsageError if options contradict each other.
    """
    selection = Selection(tuple(patterns), tuple(exclude), hidden, follow_symlinks, gitignore)
    retrying = Retries(retries, retry_delay)
    stores = StoreSettings.from_options(
        endpoint, retrying, anonymous=anonymous, allow_origins=tuple(allow_origins)
    )
    inputs = Inputs(
        tuple(os.fspath(path) for path in paths),
        selection=selection,
        limit=limit,
        stores=stores,
        max_unpacked=max_decompressed_size,
        max_window=max_window,
    )
    settings = FileWorkSettings(
        format,
        max_file_size,
        read_ahead,
        max_decompressed_size,
        max_window,
        retries=retrying,
        stores=stores,
    )
    source = FileSource(inputs, settings)
    run = Run(Job((source,), batch_size, concurrency, workers, pause, timeout=timeout))
    rejections: defaultdict[str, list[Failure]] = defaultdict(list)
    async with aclosing(run.parts()) as parts:
        async for part in parts:
            for outcome in part.outcomes():
                if isinstance(outcome, FileResult):
                    found = tuple(rejections.pop(outcome.file, ()))
                    yield structs.replace(outcome, rejections=found) if found else outcome
                elif len(rejections[outcome.file]) < MAX_LISTED_FAILURES:
                    rejections[outcome.file].append(outcome)
