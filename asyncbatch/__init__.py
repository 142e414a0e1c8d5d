"""Process folders of JSON files: fast, in bounded memory, exact about what failed.

    async for result in asyncbatch.process_files("data/"):
        print(result.file, result.status, result.records)

    report = await asyncbatch.Pipeline(records(), [clean], "people.jsonl").run()

    async with asyncbatch.Stream(events(), window="tumbling:5s", by="page") as stream:
        async for window in stream:
            print(window.start, window.key, window.aggregates)

Names are imported when they are first used: start-up time is a feature.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncbatch.api import process_files
    from asyncbatch.budget import FailureBudget
    from asyncbatch.errors import (
        AsyncbatchError,
        NothingMatchedError,
        NoWorkerError,
        UsageError,
        WorkerBugError,
    )
    from asyncbatch.job import FileSource, Job
    from asyncbatch.pipeline import Pipeline
    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.records import Failure, FileResult
    from asyncbatch.report import Report
    from asyncbatch.retrying import Retries
    from asyncbatch.run import Run, Snapshot
    from asyncbatch.settings import FileWorkSettings
    from asyncbatch.sinks import Refusal
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.selection import Selection
    from asyncbatch.sources.shard import Shard
    from asyncbatch.steps import call, field, fields, jq, require, schema
    from asyncbatch.streaming import Stream
    from asyncbatch.streams.result import WindowResult
    from asyncbatch.streams.run import StreamSnapshot
    from asyncbatch.streams.tally import StreamTally
    from asyncbatch.tally import Tally
    from asyncbatch.transforms import Context
    from asyncbatch.user_sink import Sink
    from asyncbatch.windows.events import TooManyKeysError

__version__ = "0.1.0"

_HOMES = {
    "AsyncbatchError": "errors",
    "Context": "transforms",
    "Failure": "records",
    "FailureBudget": "budget",
    "FileResult": "records",
    "FileSource": "job",
    "FileWorkSettings": "settings",
    "Inputs": "sources.inputs",
    "Job": "job",
    "NoWorkerError": "errors",
    "NothingMatchedError": "errors",
    "Pipeline": "pipeline",
    "RecordWorkSettings": "record_settings",
    "Refusal": "sinks",
    "Report": "report",
    "Retries": "retrying",
    "Run": "run",
    "Selection": "sources.selection",
    "Shard": "sources.shard",
    "Sink": "user_sink",
    "Snapshot": "run",
    "Stream": "streaming",
    "StreamSnapshot": "streams.run",
    "StreamTally": "streams.tally",
    "Tally": "tally",
    "TooManyKeysError": "windows.events",
    "UsageError": "errors",
    "WindowResult": "streams.result",
    "WorkerBugError": "errors",
    "call": "steps",
    "field": "steps",
    "fields": "steps",
    "jq": "steps",
    "process_files": "api",
    "require": "steps",
    "schema": "steps",
}

__all__ = [
    "AsyncbatchError",
    "Context",
    "Failure",
    "FailureBudget",
    "FileResult",
    "FileSource",
    "FileWorkSettings",
    "Inputs",
    "Job",
    "NoWorkerError",
    "NothingMatchedError",
    "Pipeline",
    "RecordWorkSettings",
    "Refusal",
    "Report",
    "Retries",
    "Run",
    "Selection",
    "Shard",
    "Sink",
    "Snapshot",
    "Stream",
    "StreamSnapshot",
    "StreamTally",
    "Tally",
    "TooManyKeysError",
    "UsageError",
    "WindowResult",
    "WorkerBugError",
    "__version__",
    "call",
    "field",
    "fields",
    "jq",
    "process_files",
    "require",
    "schema",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'asyncbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"asyncbatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
