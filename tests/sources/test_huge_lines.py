"""Large JSON Lines files: several workers give the same result as one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from asyncbatch import FileSource, Inputs, Job, Run
from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.core.batches import SplitFile
from asyncbatch.core.records import Failure, FileResult
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.formats.lines import InvalidLine, validate_lines
from asyncbatch.formats.positions import BOM
from asyncbatch.formats.validator import make_validator
from asyncbatch.sinks.target import Target
from asyncbatch.sources.splitter import Splitter
from asyncbatch.storage.local import open_byte_range
from asyncbatch.transforms.spec import CallSpec
from tests.commands import ROOT
from tests.conftest import python

JUDGE = make_validator()
SMALL = Sizes(split_threshold=200_000, split=20_000)

lines = st.sampled_from(
    [b"1", b"[1, 2]", b'{"a": "\xc3\xa9"}', b"", b" ", b"\r", b"nope", b" [1,]", b"7\r", BOM + b"1"]
)
texts = st.builds(
    lambda mark, parts, ending: mark + b"\n".join(parts) + ending,
    st.sampled_from([b"", BOM]),
    st.lists(lines, max_size=14),
    st.sampled_from([b"", b"\n"]),
)


def facts(chunks, start=None):
    """Return the records and failures of lines, with their positions."""
    found: list[Any] = []
    for block in validate_lines(chunks, JUDGE, start):
        for split in block.split():
            if isinstance(split, InvalidLine):
                found.append((split.record, split.position, split.text))
            else:
                texts = enumerate(split.texts)
                found += [(split.record + at, split.line + at, text) for at, text in texts]
    return found


@given(texts, st.integers(1, 40))
def test_pieces_say_what_the_whole_says(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(text)
    *splits, end = Splitter(
        str(path), SplitFile("lines"), Sizes(split_threshold=1, split=size)
    ).splits()
    assert end.is_end_marker
    assert end.error is None
    found: list[Any] = []
    for split in splits:
        record_slice = open_byte_range(str(path), split.start.byte, split.length)
        found += facts(record_slice, split.start)
    whole = facts([text])
    assert found == whole
    assert end.start.record == len(whole)
    assert end.start.byte == sum(split.length for split in splits) == len(text)
    for number, split in enumerate(splits):
        rest = Splitter(
            str(path), SplitFile("lines", split.start), Sizes(split_threshold=1, split=size)
        )
        assert [one.start for one in rest.splits()] == [
            one.start for one in (*splits[number:], end)
        ]


def test_a_line_over_the_limit_is_too_large(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n" + b"x" * 2000)
    sizes = Sizes(split_threshold=1, split=64, record=1000)
    *splits, end = Splitter(str(path), SplitFile("lines"), sizes).splits()
    assert [split.length for split in splits] == [2]
    assert end.error is not None
    assert (end.error.kind, end.error.message) == (
        "too_large",
        "a line has more than 1,000 bytes, the limit",
    )


def write_lines(path, count=20_000, bad=()):
    """Write a file of `count` records; those numbered in `bad` are invalid, some lines blank."""
    with path.open("wb") as stream:
        for number in range(1, count + 1):
            if number % 1000 == 0:
                stream.write(b" \n\n")
            stream.write(b"nope\n" if number in bad else b'{"n": %d, "t": "\xc3\xa9"}\n' % number)


def job_of(path, workers=2, sizes=SMALL, **more):
    files = FileWorkSettings(sizes=sizes)
    work = {name: more.pop(name) for name in ("target", "transforms", "letters") if name in more}
    settings = RecordWorkSettings(files, **work) if work else files
    return Job((FileSource(Inputs((str(path),)), settings),), workers=workers, **more)


async def outcomes(job, **more):
    run = Run(job, **more)
    found = [one async for part in run.parts() for one in part.outcomes()]
    return found, run.report


@pytest.mark.parametrize("workers", [0, 2])
async def test_counting_is_the_same_in_pieces(tmp_path, workers):
    path = tmp_path / "a.jsonl"
    write_lines(path, bad=(3, 9_000, 20_000))
    huge, report = await outcomes(job_of(path, workers))
    plain, plain_report = await outcomes(job_of(path, workers, Sizes()))
    assert isinstance(huge[-1], FileResult)
    assert [structs.replace(one, elapsed_ms=0) for one in huge if isinstance(one, FileResult)] == [
        structs.replace(one, elapsed_ms=0) for one in plain if isinstance(one, FileResult)
    ]
    assert huge[:-1] == plain[:-1]
    assert report.tally == plain_report.tally
    assert report.failures == plain_report.failures


@pytest.mark.parametrize("ordered", [True, False])
async def test_rows_come_in_order_and_each_part_says_where_it_ends(tmp_path, ordered):
    path = tmp_path / "a.jsonl"
    write_lines(path, bad=(15_000,))
    (tmp_path / "b.json").write_text('[{"n": 0}]')
    target = Target.parse(str(tmp_path / "out.jsonl"))
    run = Run(job_of(path, target=target, ordered=ordered))
    reached = [part.part.position async for part in run.parts() if part.part.position]
    assert reached == sorted(reached, key=lambda one: one.byte)
    assert reached[-1].byte == path.stat().st_size
    assert reached[-1].record == 20_000
    rows = [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [number for number in range(1, 20_001) if number != 15_000]
    tally = run.report.tally
    assert (tally.partial, tally.read, tally.rejected, tally.written) == (1, 20_000, 1, 19_999)
    assert tally.bytes == path.stat().st_size


@pytest.mark.parametrize("packed", [False, True])
async def test_a_run_takes_up_a_huge_file_where_another_left_it(tmp_path, packed):
    path = tmp_path / "a.jsonl"
    write_lines(path, bad=(100, 15_000))
    if packed:
        text = path.read_bytes()
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(text))
    sizes = structs.replace(SMALL, part=64 * 1024)
    first = Run(job_of(path, sizes=sizes, target=Target.parse(str(tmp_path / "1.jsonl"))))
    positions = [part.part.position async for part in first.parts() if part.part.position]
    assert len(positions) > 1
    for position in positions[:: max(1, len(positions) // 3)]:
        target = Target.parse(str(tmp_path / "2.jsonl"))
        found, report = await outcomes(
            job_of(path, target=target), reached={str(path): position}.get
        )
        rows = [json.loads(line)["n"] for line in (tmp_path / "2.jsonl").read_text().splitlines()]
        wanted = range(position.record + 1, 20_001)
        assert rows == [number for number in wanted if number not in (100, 15_000)]
        assert report.tally.read == len(wanted)
        for failure in found:
            if isinstance(failure, Failure):
                assert failure.record is not None
                assert failure.line == failure.record + 2 * (failure.record // 1000)


async def test_a_resumed_array(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"rows": [' + ",\n ".join(f'{{"n": {n}}}' for n in range(30_000)) + "]}")
    files = FileWorkSettings(sizes=SMALL)

    def job(name):
        target = Target.parse(str(tmp_path / name))
        settings = RecordWorkSettings(files, records="/rows", target=target)
        return Job((FileSource(Inputs((str(path),)), settings),), workers=2)

    run = Run(job("1.jsonl"))
    positions = [part.part.position async for part in run.parts() if part.part.position]
    assert run.report.tally.read == 30_000
    middle = positions[len(positions) // 2]
    again = Run(job("2.jsonl"), reached=lambda _: middle)
    assert [part async for part in again.parts()]
    rows = [json.loads(line)["n"] for line in (tmp_path / "2.jsonl").read_text().splitlines()]
    assert rows == list(range(middle.record, 30_000))
    assert again.report.tally.succeeded == 1


CLEAN = """
import os
def clean(record, context):
    if record["n"] == 12_345:
        os._exit(9)
    return record
def tell(record, context):
    return {"n": record["n"], "record": context.record, "line": context.line}
async def later(record):
    return {"n": record["n"]}
"""


async def test_a_worker_that_dies_ends_its_file_and_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path)
    (tmp_path / "b.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "clean.py").write_text(CLEAN)
    target = Target.parse(str(tmp_path / "out.jsonl"))
    found, report = await outcomes(
        job_of(tmp_path, target=target, transforms=(CallSpec(f"{tmp_path}/clean.py:clean"),))
    )
    results = {one.file[-7:]: one for one in found if isinstance(one, FileResult)}
    error = results["a.jsonl"].error
    assert error is not None
    assert error.kind == "worker_crash"
    assert results["b.jsonl"].status == "success"
    rows = [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    before = results["a.jsonl"].records
    assert rows == [*range(1, before + 1), 1]
    assert before < 12_345
    assert f"(after {before:,} records)" in error.message
    assert report.tally.read == report.tally.written == before + 1


@pytest.mark.parametrize("name", ["tell", "later"])
async def test_functions_are_told_the_place_of_each_record(tmp_path, name):
    path = tmp_path / "a.jsonl"
    write_lines(path)
    (tmp_path / "clean.py").write_text(CLEAN)
    target = Target.parse(str(tmp_path / "out.jsonl"))
    job = job_of(path, target=target, transforms=(CallSpec(f"{tmp_path}/clean.py:{name}"),))
    if name == "later":
        (source,) = job.sources
        assert isinstance(source, FileSource)
        work = structs.replace(source.settings, call_is_async=True)
        job = structs.replace(job, sources=(structs.replace(source, settings=work),))
    _, report = await outcomes(job)
    assert report.tally.written == 20_000
    for number, line in enumerate((tmp_path / "out.jsonl").read_text().splitlines(), 1):
        row = json.loads(line)
        assert row["n"] == number
        if name == "tell":
            assert row["record"] == number
            assert row["line"] == number + 2 * (number // 1000)


async def test_every_record_of_a_huge_file_may_be_rejected(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"nope\n" * 60_000)
    found, report = await outcomes(job_of(path))
    [result] = [one for one in found if isinstance(one, FileResult)]
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.record, result.rejected) == (1, 60_000)
    assert (report.tally.failed, report.tally.read, report.failure_count) == (1, 60_000, 60_000)


async def test_a_budget_is_judged_within_a_huge_file(tmp_path):
    from asyncbatch.core.tally import FailureBudget

    path = tmp_path / "a.jsonl"
    write_lines(path, 100_000, bad=(1,))
    target = Target.parse(str(tmp_path / "out.jsonl"))
    _, report = await outcomes(job_of(path, target=target, budget=FailureBudget(0)))
    assert report.over_budget
    assert 0 < report.tally.read < 100_000
    assert report.tally.files == 0


async def test_progress_moves_inside_a_huge_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path)
    run = Run(job_of(path))
    seen = [run.snapshot().tally.bytes async for _ in run.parts()]
    assert seen == sorted(seen)
    assert len([one for one in seen if 0 < one < path.stat().st_size]) > 3
    assert seen[-1] == path.stat().st_size


def test_a_huge_file_into_a_table_and_a_folder(run, tmp_path):
    """The command reads 70 MB within its memory limit, and loses nothing."""
    path = tmp_path / "in/big.jsonl"
    path.parent.mkdir()
    line = b'{"n": %d, "text": "' + b"x" * 300 + b'"}\n'
    with path.open("wb") as stream:
        stream.writelines(line % number for number in range(220_000))
    assert path.stat().st_size > 64 * 1024 * 1024
    counted = run("in", "-o", "json").json
    assert counted["records"]["read"] == 220_000
    assert counted["files"]["bytes"] == path.stat().st_size
    table = run("in", "--to", "sqlite:///a.db", "--table", "t", "-o", "json").json
    assert table["records"]["written"] == 220_000
    assert table["peak_memory_bytes"] < 400_000_000
    folder = run("in", "--to", "out/", "-o", "json").json
    assert folder["records"]["written"] == 220_000
    assert (tmp_path / "out/in/big.jsonl").stat().st_size > 64 * 1024 * 1024
    piped = run("-", "--format", "jsonl", "-o", "json", stdin=path.read_bytes()).json
    assert piped["records"] == counted["records"]


def test_looking_at_a_version_loads_nothing_of_this():
    program = (
        "import sys; sys.argv = ['asyncbatch', '--version']\n"
        "try:\n    from asyncbatch.cli import main; main()\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.endswith(('splitting', 'arrays'))])"
    )
    assert python(program, PYTHONPATH=str(ROOT)).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_huge_files_among_others_come_in_their_turn(tmp_path, batch_size, pause):
    folder = tmp_path / "in"
    folder.mkdir()
    wanted: list[Any] = []
    for number in range(30):
        name = f"{number:02}"
        if number in (7, 8, 20):
            write_lines(folder / f"{name}.jsonl", 12_000)
            wanted += range(1, 12_001)
        elif number in (12, 29):
            rows = [{"n": -n} for n in range(12_000)]
            (folder / f"{name}.json").write_text(json.dumps(rows))
            wanted += [-n for n in range(12_000)]
        else:
            (folder / f"{name}.json").write_text(f'[{{"n": "{name}"}}]')
            wanted.append(name)
    target = Target.parse(str(tmp_path / "out.jsonl"))
    sizes = Sizes(split_threshold=100_000, split=9_000)
    job = job_of(folder, sizes=sizes, target=target, batch_size=batch_size, pause=pause)
    found, report = await outcomes(job)
    rows = [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == wanted
    files = [one.file for one in found if isinstance(one, FileResult)]
    assert files == sorted(str(path) for path in folder.iterdir())
    assert report.tally.succeeded == 30
    assert report.tally.bytes == sum(path.stat().st_size for path in folder.iterdir())
    target = Target.parse(str(tmp_path / "again.jsonl"))
    job = job_of(folder, sizes=sizes, target=target, batch_size=batch_size, ordered=False)
    _, report = await outcomes(job)
    again = [json.loads(line)["n"] for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert sorted(map(str, again)) == sorted(map(str, wanted))
    assert report.tally.succeeded == 30


async def test_a_stop_within_a_huge_file_counts_what_was_handed_on(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, 100_000)
    run = Run(job_of(path, target=Target.parse(str(tmp_path / "out.ndjson"))))
    async for _ in run.parts():
        run.stop()
    tally = run.report.tally
    assert 0 < tally.read < 100_000
    assert tally.files == 0
    assert run.report.status == "interrupted"


async def test_an_array_that_is_broken_among_pieces(tmp_path):
    path = tmp_path / "a.json"
    texts = [f'{{"n": {n}}}' for n in range(20_000)]
    texts[15_000] = '{"n": nope}'
    path.write_text("[" + ",\n".join(texts) + "]")
    (tmp_path / "b.json").write_text('[{"n": "b"}]')
    found, report = await outcomes(
        job_of(tmp_path, target=Target.parse(str(tmp_path / "out.ndjson")), ordered=False)
    )
    [failed] = [one for one in found if isinstance(one, FileResult) and one.error]
    assert failed.error is not None
    assert failed.error.message.endswith("(after 15,000 records)")
    assert (failed.error.line, failed.error.column) == (15_001, 8)
    assert failed.records == 15_000
    assert report.tally.written == 15_001
    assert report.failures == [failed.error]


async def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, 100_000)
    run = Run(job_of(path, workers=0, target=Target.parse(str(tmp_path / "out.ndjson"))))
    found = []
    async for part in run.parts():
        path.write_bytes(path.read_bytes()[:100_000])
        found += list(part.outcomes())
    [result] = [one for one in found if isinstance(one, FileResult)]
    if result.error is not None:
        assert result.error.kind == "read_error"
        assert "cut short" in result.error.message
    assert result.records < 100_000


@given(texts, st.integers(1, 40))
def test_pieces_that_nobody_counted_are_whole_lines(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(text)
    huge = SplitFile("lines", is_relative=True)
    *splits, end = Splitter(str(path), huge, Sizes(split_threshold=1, split=size)).splits()
    assert end.is_end_marker
    assert end.error is None
    at = 0
    for split in splits:
        assert (split.start.byte, split.is_relative) == (at, True)
        at += split.length
        assert text[:at].endswith(b"\n") or at == len(text)
    assert at == len(text)
