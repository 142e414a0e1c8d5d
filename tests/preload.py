"""The imports of the process from which commands fork: `tests.commands` names this module to it."""

from __future__ import annotations

import gc
from importlib import import_module

from asyncbatch.cli.app import load_command

MODULES = (
    "asyncbatch.cli.app",
    "asyncbatch.cli.commands.etl",
    "asyncbatch.cli.options.file_job",
    "asyncbatch.cli.options.job",
    "asyncbatch.cli.live.page",
    "asyncbatch.cli.observers.start",
    "asyncbatch.cli.observers.ping",
    "asyncbatch.cli.report_files",
    "asyncbatch.cli.commands.run",
    "asyncbatch.cli.session",
    "asyncbatch.cli.commands.stream",
    "asyncbatch.cli.stream_work",
    "asyncbatch.pipeline.feeds",
    "asyncbatch.pipeline.loader",
    "asyncbatch.pipeline.resume.session",
    "asyncbatch.pipeline.run",
    "asyncbatch.sinks.databases.duckdb",
    "asyncbatch.sinks.parquet",
    "asyncbatch.sinks.databases.postgres.sink",
    "asyncbatch.sinks.databases.sqlite",
    "asyncbatch.sinks.text_files",
    "asyncbatch.sources.http.paging.linked",
    "asyncbatch.sources.http.paging.numbered",
    "asyncbatch.state.history",
    "asyncbatch.state.ledger.duckdb",
    "asyncbatch.state.ledger.file",
    "asyncbatch.state.ledger.postgres",
    "asyncbatch.transforms.call",
    "asyncbatch.transforms.jq.transform",
    "asyncbatch.transforms.load",
    "asyncbatch.transforms.schema",
    "asyncbatch.workers.main",
    "asyncbatch.workers.tasks.transform",
    "asyncbatch.workers.tasks.transform_sources",
    "aiohttp",
    "aiohttp.web",
    "asyncpg",
    "csimdjson",
    "duckdb",
    "jq",
    "jsonschema_rs",
    "mmap",
    "orjson",
    "pyarrow.parquet",
)

for _name in MODULES:
    import_module(_name)
for _name in ("run", "validate", "etl", "stream"):
    load_command(_name)
gc.freeze()  # a collection in a fork would copy the pages of all these objects
