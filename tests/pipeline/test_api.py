"""The library: its names, its results, and the clean end of a closed generator."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import psutil
import pytest

import asyncbatch
from tests.commands import ROOT
from tests.conftest import many, python


def test_the_public_names():
    assert sorted(asyncbatch.__all__) == [
        "AsyncbatchError", "Context", "Failure", "FailureBudget", "FileResult", "FileSource",
        "FileWorkSettings", "Inputs", "Job", "NoWorkerError", "NothingMatchedError", "Pipeline",
        "RecordWorkSettings", "Refusal", "Report", "Retries", "Run", "Selection", "Shard", "Sink",
        "Snapshot", "Stream", "StreamSnapshot", "StreamTally", "Tally", "TooManyKeysError",
        "UsageError", "WindowResult", "WorkerBugError",
        "__version__",
        "call", "field", "fields", "jq", "process_files", "read_secret", "require", "schema",
    ]  # fmt: skip
    for name in asyncbatch.__all__:
        assert getattr(asyncbatch, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        asyncbatch.nonsense  # noqa: B018


def test_the_reference_has_each_public_name():
    lines = (ROOT / "docs" / "api.md").read_text().splitlines()
    listed = [line.removeprefix("::: asyncbatch.") for line in lines if line.startswith(":::")]
    assert sorted(listed) == sorted({*asyncbatch.__all__, "http"} - {"__version__"})


async def test_process_files(files):
    folder = files({"a.json": "[1, 2]", "b.json": "[1,]", "c.jsonl": "1\nx\n"})
    results = {result.file: result async for result in asyncbatch.process_files(folder)}
    a, b, c = (results[f"{folder}/{name}"] for name in ("a.json", "b.json", "c.jsonl"))
    assert (a.status, a.records, a.error) == ("success", 2, None)
    assert b.status == "failed"
    assert b.error is not None
    assert (b.error.kind, b.error.line, b.error.column, b.error.byte) == ("invalid_json", 1, 4, 3)
    assert (c.status, c.records, c.rejected) == ("partial", 2, 1)
    assert [failure.record for failure in c.rejections] == [2]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_any_number_of_workers_gives_the_same(files, workers, concurrency):
    folder = files({**many(700, "[1, 2]"), "bad.json": "x"})
    stream = asyncbatch.process_files(
        folder, workers=workers, concurrency=concurrency, batch_size=50
    )
    results = [result async for result in stream]
    assert len({result.file for result in results}) == len(results) == 701
    assert sum(result.records for result in results) == 1400


async def test_leaving_early_ends_the_workers(files):
    folder = files(many(3000))
    others = psutil.Process().children()  # servers of other tests
    results = asyncbatch.process_files(folder, workers=2, batch_size=10)
    async with aclosing(results):
        await anext(results)
        workers = [child for child in psutil.Process().children() if child not in others]
        assert len(workers) == 2
    assert not any(worker.is_running() for worker in workers)


async def test_a_cancelled_task_ends_cleanly(files):
    folder, begun = files(many(3000)), asyncio.Event()

    async def consume():
        results = asyncbatch.process_files(folder, workers=2, batch_size=1)
        async with aclosing(results):
            async for _ in results:
                begun.set()
                await asyncio.sleep(0.01)

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


async def test_nothing_found_is_an_error(tmp_path):
    with pytest.raises(asyncbatch.NothingMatchedError, match="no JSON files in"):
        [result async for result in asyncbatch.process_files(tmp_path)]


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"concurrency": 0}, {"workers": -1}, {"pause": -1}]
)
async def test_options_that_cannot_be_meant(files, wrong):
    folder = files(many(1))
    with pytest.raises(asyncbatch.UsageError, match=next(iter(wrong))):
        [result async for result in asyncbatch.process_files(folder, **wrong)]


async def test_reports_add_up(files):
    folder = files({"a.json": "[1, 2]", "b.json": "[1,]"})
    source = asyncbatch.FileSource(asyncbatch.Inputs((str(folder),)))
    run = asyncbatch.Run(asyncbatch.Job((source,)))
    parts = [part async for part in run.parts()]
    total = asyncbatch.Tally()
    total += run.report.tally
    total += run.report.tally
    assert (total.files, total.read, total.failures) == (4, 4, 2)
    assert len(parts) == 1
    assert run.report.status == "partial"


def test_importing_is_light():
    """`import asyncbatch` loads neither typer nor rich, nor a JSON library, nor asyncio."""
    program = (
        "import sys, asyncbatch\n"
        "heavy = {'typer', 'rich', 'asyncio', 'orjson', 'simdjson', 'aiofiles', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import asyncbatch.pipeline.api\n"
        "print(sorted({'typer', 'rich'} & set(sys.modules)))"
    )
    assert python(program).stdout == "[]\n[]\n"
