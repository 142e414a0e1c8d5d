"""Process folders of JSON files: fast, in bounded memory, exact about what failed.

    async for result in asyncbatch.process_files("data/"):
        print(result.file, result.status, result.records)

    report = await asyncbatch.Pipeline(records(), [clean], "people.jsonl").run()

    async with asyncbatch.Stream(events(), window="tumbling:5s", by="page") as stream:
        async for window in stream:
            print(window.start, window.key, window.aggregates)

Names are imported when they are first used: start-up time is a feature.
"""

from asyncbatch._version import __version__

# Nothing of the standard library is imported here: `python -m asyncbatch` would look for it in the
# current folder first, and the command sets its signal handlers after this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
    from asyncbatch.config.secret_sources import read_secret
    from asyncbatch.core.records import Failure, FileResult
    from asyncbatch.core.report import Report
    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.core.tally import FailureBudget, StreamTally, Tally
    from asyncbatch.errors import (
        AsyncbatchError,
        NothingMatchedError,
        NoWorkerError,
        TooManyKeysError,
        UsageError,
        WorkerBugError,
    )
    from asyncbatch.pipeline.api import process_files
    from asyncbatch.pipeline.builder import Pipeline
    from asyncbatch.pipeline.run import Run, Snapshot
    from asyncbatch.pipeline.stream.api import Stream, WindowResult
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.sinks.base import Refusal
    from asyncbatch.sinks.callback import Sink
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.selection import Selection, Shard
    from asyncbatch.transforms.base import Context
    from asyncbatch.transforms.spec import call, field, fields, jq, require, schema

_HOMES = {
    "AsyncbatchError": "errors",
    "Context": "transforms.base",
    "Failure": "core.records",
    "FailureBudget": "core.tally",
    "FileResult": "core.records",
    "FileSource": "config.job",
    "FileWorkSettings": "core.settings",
    "Inputs": "sources.inputs",
    "Job": "config.job",
    "NoWorkerError": "errors",
    "NothingMatchedError": "errors",
    "Pipeline": "pipeline.builder",
    "RecordWorkSettings": "config.job",
    "Refusal": "sinks.base",
    "Report": "core.report",
    "Retries": "core.retry",
    "Run": "pipeline.run",
    "Selection": "sources.selection",
    "Shard": "sources.selection",
    "Sink": "sinks.callback",
    "Snapshot": "pipeline.run",
    "Stream": "pipeline.stream.api",
    "StreamSnapshot": "pipeline.stream.run",
    "StreamTally": "core.tally",
    "Tally": "core.tally",
    "TooManyKeysError": "errors",
    "UsageError": "errors",
    "WindowResult": "pipeline.stream.api",
    "WorkerBugError": "errors",
    "call": "transforms.spec",
    "field": "transforms.spec",
    "fields": "transforms.spec",
    "jq": "transforms.spec",
    "process_files": "pipeline.api",
    "read_secret": "config.secret_sources",
    "require": "transforms.spec",
    "schema": "transforms.spec",
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
    "read_secret",
    "require",
    "schema",
]


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'asyncbatch' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"asyncbatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
