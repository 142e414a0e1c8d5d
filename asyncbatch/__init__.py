"""Process folders of JSON files: fast, in bounded memory, exact about what failed.

    async for result in asyncbatch.process_files("data/"):
        print(result.file, result.status, result.records)

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
    from asyncbatch.records import Failure, FileResult
    from asyncbatch.report import Report
    from asyncbatch.retrying import Retries
    from asyncbatch.run import Run, Snapshot
    from asyncbatch.settings import FileWorkSettings
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.selection import Selection
    from asyncbatch.sources.shard import Shard
    from asyncbatch.tally import Tally

__version__ = "0.1.0"

_HOMES = {
    "AsyncbatchError": "errors",
    "Failure": "records",
    "FailureBudget": "budget",
    "FileResult": "records",
    "FileSource": "job",
    "FileWorkSettings": "settings",
    "Inputs": "sources.inputs",
    "Job": "job",
    "NoWorkerError": "errors",
    "NothingMatchedError": "errors",
    "Report": "report",
    "Retries": "retrying",
    "Run": "run",
    "Selection": "sources.selection",
    "Shard": "sources.shard",
    "Snapshot": "run",
    "Tally": "tally",
    "UsageError": "errors",
    "WorkerBugError": "errors",
    "process_files": "api",
}

__all__ = [
    "AsyncbatchError",
    "Failure",
    "FailureBudget",
    "FileResult",
    "FileSource",
    "FileWorkSettings",
    "Inputs",
    "Job",
    "NoWorkerError",
    "NothingMatchedError",
    "Report",
    "Retries",
    "Run",
    "Selection",
    "Shard",
    "Snapshot",
    "Tally",
    "UsageError",
    "WorkerBugError",
    "__version__",
    "process_files",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'asyncbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"asyncbatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
