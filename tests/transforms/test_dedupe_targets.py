"""`dedupe` with each kind of target: records with a known key are dropped."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
from asyncbatch.core.batches import Batch, BatchPart, Counts, Part
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.core.tally import Tally, tally_of
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.pipeline.dedupe import Deduplicator
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.row_writer import make_row_writer
from asyncbatch.sinks.target import Target
from asyncbatch.sources.inputs import Inputs
from tests.servers.api import ApiServer

allow_deep_nesting()  # the first run would raise the recursion limit during a test
KEYS = st.sampled_from([None, 1, 2, 1.0, "1", "", True, [1], {"a": 1}])
RECORDS = st.lists(st.fixed_dictionaries({}, optional={"id": KEYS, "k": KEYS}), max_size=6)


def firsts(records, key=("id",)):
    """Return the first record of each key: a naive reference."""
    seen, kept = set(), []
    for record in records:
        values = [record.get(name) for name in key]
        text = json.dumps([int(v) if type(v) is float else v for v in values])
        if text not in seen or not any(value is not None for value in values):
            kept.append(record)
        seen.add(text)
    return kept


def numbered(files):
    """Give each record its number; return the files, and all records in order."""
    files = [[record | {"n": [at, number]} for number, record in enumerate(one)]
             for at, one in enumerate(files)]  # fmt: skip
    return files, [record for one in files for record in one]


@settings(max_examples=60)
@given(st.lists(RECORDS, min_size=1, max_size=6), st.integers(1, 3), st.booleans(), st.booleans())
def test_any_division_into_files_and_batches_keeps_the_same(files, batch_size, pair, huge):
    key = ("id", "k") if pair else ("id",)
    files, records = numbered(files)
    with tempfile.TemporaryDirectory() as folder:
        for at, one in enumerate(files):
            lines = "".join(json.dumps(record) + "\n" for record in one)
            Path(folder, f"{at}.jsonl").write_text(lines)
        tally, out = asyncio.run(_run(folder, key, batch_size, huge=huge))
    assert out == firsts(records, key)
    assert (tally.read, tally.written) == (len(records), len(out))
    assert tally.dropped == len(records) - len(out)


async def _run(folder, key, batch_size, *, huge):
    sizes = Sizes(split_threshold=100, split=40, part=1) if huge else Sizes(part=1)
    target = Target.parse(str(Path(folder, "out.jsonl.gz")))
    work = RecordWorkSettings(FileWorkSettings(sizes=sizes), dedupe=key, target=target)
    paths = tuple(sorted(str(path) for path in Path(folder).iterdir()))
    run = Run(Job((FileSource(Inputs(paths), work),), batch_size, workers=0))
    async for _ in run.parts():
        pass
    lines = gzip.decompress(Path(target.path).read_bytes()).splitlines()
    return run.report.tally, [json.loads(line) for line in lines]


class Found:
    """A stand-in for the contents of a part, for a RowWriter."""

    def __init__(self):
        self.rows, self.places, self.records, self.lines = [], [], [], []
        self.added: dict[str, list[int]] = {}
        self.encoded: list[bytes] = []
        self.original_texts, self.file_ends, self.has_many_rows = [], [], True


@given(
    st.lists(st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=4), max_size=4),
    st.sampled_from(["o.jsonl", "o.jsonl.gz", "o.csv", "sqlite:///x"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_records_that_become_several_rows(files, to, huge, random):
    table = {"table": "t"} if ":" in to else {}
    target = Target.parse(to, **table)
    row_writer, duplicates = (
        make_row_writer(target, FileWorkSettings(), ("id",)),
        Deduplicator(target),
    )
    tally, kept = Tally(), []
    for start, records in enumerate(files):
        for part in _parts_of(start, records, row_writer, random, huge=huge):
            duplicates.drop_duplicates(BatchPart(Batch(start, ("f",)), part))
            tally += tally_of(part)
            if part.rows is not None:
                assert part.rows.count == len(part.rows.records) == len(_rows(part.rows, to))
                kept += _rows(part.rows, to)
                if len(part):
                    assert part.spooled_rows == [part.rows.count]
            elif len(part):
                assert part.spooled_rows == [0]
    duplicates.close()
    assert kept == firsts([{"id": key} for one in files for made in one for key in made])
    expected, seen = 0, set[int]()
    for made in (made for one in files for made in one if made):
        expected += seen >= set(made)
        seen |= set(made)
    assert (tally.dropped, tally.succeeded) == (expected, len(files))


def _parts_of(start, records, row_writer, random, *, huge):
    """Yield the parts of a file; a part ends at random rows."""
    found, told = Found(), Counts()
    for number, made in enumerate(records, 1):
        for key in made:
            if random.random() < 0.4:
                part = Part(start, rows=row_writer.encode(found))
                if huge:
                    part.counts = Counts(read=number)
                    told.add(part.counts)
                yield part
                found = Found()
            found.rows.append({"id": key})
            found.places.append(0)
            found.records.append(number)
            found.lines.append(None)
    found.file_ends = [len(found.rows)]
    part = Part(
        start,
        [len(records)],
        [1],
        [0.0],
        rows=row_writer.encode(found),
        spooled_rows=[len(found.rows)],
    )
    part.counts = told if huge else None
    yield part


def _rows(rows, to):
    if to == "o.csv":
        cells = json.loads(bytes(rows.payload))
        return [{"id": json.loads(str(row["id"]))} for row in cells]
    if ":" in to:
        from asyncbatch.sinks.columns.block import ColumnBlock

        (values,) = ColumnBlock.from_bytes(rows.payload).values
        return [{"id": value} for value in values]
    text = gzip.decompress(rows.payload) if to.endswith(".gz") else bytes(rows.payload)
    assert rows.ends == [len(text)]
    return [json.loads(line) for line in text.splitlines()]


def read(path, to):
    if to.startswith("sqlite"):
        with closing(sqlite3.connect(path)) as database:
            return [row[0] for row in database.execute("SELECT n FROM t ORDER BY n")]
    if to.startswith("duckdb"):
        with closing(duckdb.connect(str(path))) as database:
            return [row[0] for row in database.execute("SELECT n FROM t ORDER BY n").fetchall()]
    if to.endswith("parquet"):
        return pyarrow.parquet.read_table(path)["n"].to_pylist()
    if to.endswith("csv"):
        return [int(row["n"]) for row in csv.DictReader(path.read_text().splitlines())]
    text = gzip.decompress(path.read_bytes()) if to.endswith(".gz") else path.read_bytes()
    return [json.loads(line)["n"] for line in text.splitlines()]


PIPELINE = """
name = "dedupe"
[[source]]
type = "files"
paths = ["in"]
[[transform]]
type = "fields"
fields = { id = "user.id", n = "n" }
[[transform]]
type = "dedupe"
key = ["id"]
[sink]
"""


@pytest.mark.parametrize(
    "to", ["o.jsonl", "o.jsonl.gz", "o.csv", "o.parquet", "sqlite:///o.db", "duckdb:///o.db"]
)
def test_a_pipeline_into_each_target(etl, files, to):
    records = [{"user": {"id": number % 70 or None}, "n": number} for number in range(300)]
    folder = files(
        {f"in/{at}.json": json.dumps(records[at * 60 : at * 60 + 60]) for at in range(5)}
    )
    table = 'table = "t"' if ":" in to else ""
    (folder / "p.toml").write_text(f"{PIPELINE}to = '{to}'\n{table}")
    outcome = etl("p.toml", "--output", "json")
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads(outcome.stdout)
    expected = sorted({*range(70), *range(0, 300, 70)})
    assert report["records"] == {
        "read": 300, "passed": 74, "dropped": 226, "rejected": 0, "written": 74,
    }  # fmt: skip
    assert read(folder / to.rpartition("/")[2], to) == expected
    events = [json.loads(line) for line in etl("p.toml", "--output", "jsonl").stdout.splitlines()]
    done = [event["status"] for event in events if event["event"] == "file"]
    # A file is written again from all inputs; a database keeps the rows of earlier runs.
    assert done == ["success" if table == "" else "skipped"] * 5
    assert read(folder / to.rpartition("/")[2], to) == expected


@pytest.mark.parametrize("to", ["o.jsonl", "sqlite:///o.db"])
def test_several_sources_have_one_first(etl, files, to):
    with ApiServer([{"user": {"id": n}, "n": n} for n in range(50)], size=7) as api:
        sources = "".join(
            f'[[source]]\ntype = "http"\nurls = ["{api.url(path)}"]\nrecords = "/items"\n'
            f"pagination = {{ {pages} }}\n"
            for path, pages in (
                ("/cursor", 'type = "cursor", next = "/next_cursor"'),
                ("/page", 'type = "page"'),
            )
        )
        table = 'table = "t"' if ":" in to else ""
        text = PIPELINE.replace("[[source]]", f"{sources}[[source]]")
        folder = files(
            {"p.toml": f"{text}to = '{to}'\n{table}", "in/1.json": '{"user":{"id":3},"n":3}'}
        )
        outcome = etl("p.toml", "--output", "json")
    assert outcome.returncode == 0, outcome.stderr
    counts = json.loads(outcome.stdout)["records"]
    assert (counts["read"], counts["dropped"], counts["written"]) == (101, 51, 50)
    assert sorted(read(folder / to.rpartition("/")[2], to)) == list(range(50))


def test_the_first_of_the_input_whatever_the_workers(run, files):
    one = [{"id": number % 50, "n": number} for number in range(20_000)]
    folder = files(
        {f"{at}.json": json.dumps(one[at * 2000 : at * 2000 + 2000]) for at in range(10)}
    )
    names = [f"{at}.json" for at in range(10)]
    options = ("--workers", "2", "--batch-size", "1", "--to", "o.jsonl", "--dedupe", "id")
    assert run(*names, *options).code == 0
    assert read(folder / "o.jsonl", "o.jsonl") == list(range(50))


def test_rejected_records_have_no_key_that_counts(run, files):
    schema = '{"properties": {"n": {"type": "integer"}}}'
    folder = files(
        {"s.json": schema, "in.jsonl": '{"id":1,"n":"x"}\n{"id":1,"n":2}\n{"id":1,"n":3}'}
    )
    outcome = run(
        "in.jsonl", "--schema", "s.json", "--to", "o.jsonl", "--dedupe", "id", "--output", "json"
    )
    assert outcome.json["records"] == {
        "read": 3, "passed": 1, "dropped": 1, "rejected": 1, "written": 1,
    }  # fmt: skip
    assert read(folder / "o.jsonl", "o.jsonl") == [2]


def test_a_file_that_fails_near_its_end_has_no_first(run, files):
    broken = b'{"id": 1, "n": 1}\n' * 10 + b'{"id": 2, "n"'
    folder = files(
        {"a.json": b"[" + broken.replace(b"\n", b",") + b"]", "b.json": '{"id":1,"n":2}'}
    )
    assert run("a.json", "b.json", "--to", "o.jsonl", "--dedupe", "id").code == 1
    assert read(folder / "o.jsonl", "o.jsonl") == [2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "out/"), "not a folder"),
        ((), "not a folder"),
        (("--to", "o.csv", "--resume"), "dedupe knows only the keys of one run"),
    ],
)
def test_what_cannot_be_done_is_refused(run, files, options, words):
    folder = files({"in.json": "{}"})
    outcome = run("in.json", "--dedupe", "id", *options)
    assert outcome.code == 2
    assert words in " ".join(outcome.stderr.split())
    assert not (folder / "out").exists()


def test_a_folder_is_a_mistake_in_a_pipeline_file(etl, files):
    files({"p.toml": f"{PIPELINE}to = 'out/'"})
    outcome = etl("p.toml", "--check")
    assert outcome.returncode == 2
    assert "transform[1].type" in outcome.stderr
    assert "cannot have a folder" in outcome.stderr


def test_a_path_that_is_none(run, files):
    files({"in.json": "{}"})
    outcome = run("in.json", "--dedupe", "a..b", "--to", "o.jsonl")
    assert outcome.code == 2
    assert '"a..b" is not the path of a field' in outcome.stderr
