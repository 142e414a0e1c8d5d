"""Partitioned targets: one file for each combination of the values of fields."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import random
import sqlite3
import subprocess
from collections import defaultdict
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import duckdb
import pyarrow.parquet
import pytest

from asyncbatch import Pipeline
from asyncbatch.formats.compression import compression_by_name
from tests.commands import CommandProcess, environment
from tests.faults.disks import LIMITED
from tests.processes import wait_until
from tests.reports import rows

NULL = "__HIVE_DEFAULT_PARTITION__"
COUNTRIES = ["DE", "US", "us", "Côte d'Ivoire", "a/b", "..", "", None]
# A prefix of a command: few open files.
FEW_FILES = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
SLOW = """\
import os, time

def f(record):
    if os.path.exists("slow"):
        time.sleep(0.05)  # the ledger is written about once a second
    while record["id"] >= 100 and os.path.exists("slow"):
        time.sleep(0.01)
    return record
"""


def orders(count):
    """Return records with values of many kinds, the same each time."""
    chance = random.Random(7)
    start = datetime(2025, 11, 3, 23, 30, tzinfo=UTC)
    made = []
    for number in range(count):
        record = {
            "id": number,
            "country": chance.choice(COUNTRIES),
            "created": (start + timedelta(hours=number)).isoformat(),
            "amount": chance.choice([1, 2.5, -3]),
        }
        if number % 11 == 0:
            del record["country"]
        made.append(record)
    return made


def as_inputs(records, count=5):
    """Return the records as files, which come in this order."""
    size = -(-len(records) // count)
    return {
        f"in/{number}.jsonl": "".join(
            json.dumps(record, ensure_ascii=False) + "\n"
            for record in records[number * size : (number + 1) * size]
        )
        for number in range(count)
    }


def word(value) -> str:
    """Return the text of a value as a reader of partitions gets it."""
    if value is None:
        return NULL
    return "__EMPTY__" if value == "" else value


def found(folder, suffix=".jsonl"):
    """Return the bytes of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(suffix)
    }


def unpacked(name: str, data: bytes) -> bytes:
    compression = compression_by_name(name)
    return b"".join(compression.chunks(io.BytesIO(data), 1 << 20)) if compression else data


def records_of(name: str, data: bytes):
    """Return the records of a file by a reader of its own kind."""
    if name.endswith(".parquet"):
        return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    if name.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    return rows(unpacked(name, data).decode())


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".ndjson.zst", ".csv", ".parquet"])
def test_each_record_is_in_its_file_as_it_would_be_in_one(run, files, suffix):
    records = orders(400)
    folder = files(as_inputs(records))
    assert run("in", "--to", f"whole{suffix}", "-j", "2").code == 0
    whole = records_of(suffix, (folder / f"whole{suffix}").read_bytes())
    name = "out/country={country}/month={date:created:%Y-%m}/rows" + suffix
    outcome = run("in", "--to", name, "-j", "2", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["records"]["written"] == len(records)

    expected = defaultdict(list)
    for record, written in zip(records, whole, strict=True):
        key = word(record.get("country")), record["created"][:7]
        expected[key].append(written)
    partitions = {}
    for path, data in found(folder / "out", "").items():
        country, month, last = path.split("/")
        assert last == f"rows{suffix}"
        key = unquote(country.removeprefix("country=")), month.removeprefix("month=")
        partitions[key] = records_of(path, data)
    assert partitions == expected, "each in the order of the inputs"
    assert f"{len(expected)} files written for {name}" in outcome.json["notes"]


def test_unchanged_records_keep_their_text(run, files):
    folder = files({"in.jsonl": '{"k": "a", "n": 1.10}\n{"k":"b","n":1e2,"n":3}\n'})
    assert run("in.jsonl", "--to", "out/{k}.jsonl").code == 0
    assert (folder / "out" / "a.jsonl").read_text() == '{"k":"a","n":1.10}\n'
    assert (folder / "out" / "b.jsonl").read_text() == '{"k":"b","n":1e2,"n":3}\n'


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_duckdb_reads_the_folder(run, files, suffix):
    records = orders(300)
    folder = files(as_inputs(records))
    assert run("in", "--to", f"out/land={{country}}/rows.{suffix}").code == 0
    reader = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[suffix]
    query = (
        f"SELECT land, count(*), sum(id)::BIGINT FROM {reader}('{folder}/out/**/*.{suffix}',"
        " hive_partitioning=true, hive_types={'land': VARCHAR}) GROUP BY 1"
    )
    with duckdb.connect() as database:
        answer = {land: numbers for land, *numbers in database.execute(query).fetchall()}
    expected: defaultdict[str | None, list[int]] = defaultdict(lambda: [0, 0])
    for record in records:
        country = record.get("country")
        sums = expected["__EMPTY__" if country == "" else country]
        sums[0] += 1
        sums[1] += record["id"]
    assert answer == expected


def test_all_partitions_of_a_table_have_the_same_columns(run, files):
    folder = files(
        {"in.jsonl": '{"k":"a","n":1}\n{"k":"b","n":2.5,"s":"x","t":[1]}\n{"k":"c","t":["y"]}\n'}
    )
    assert run("in.jsonl", "--to", "{k}.parquet").code == 0
    schemas = [
        pyarrow.parquet.read_schema(folder / f"{k}.parquet").remove_metadata() for k in "abc"
    ]
    assert schemas[0] == schemas[1] == schemas[2]
    assert [str(field.type) for field in schemas[0]] == ["string", "double", "string", "string"]
    assert run("in.jsonl", "--to", "{k}.csv", "--csv-safe", "--null-value", "NULL").code == 0
    assert (folder / "a.csv").read_text() == "k,n,s,t\na,1,NULL,NULL\n"
    assert (folder / "c.csv").read_text() == 'k,n,s,t\nc,NULL,NULL,"[""y""]"\n'
    assert run("in.jsonl", "--to", "{t.0}/{k}.csv", "--columns", "n").code == 0
    assert (folder / NULL / "a.csv").read_text() == "n\n1\n"
    assert (folder / "1" / "b.csv").read_text() == "n\n2.5\n"


# Each value, and the name of its file.
NAMES = [
    ("plain-1_x.y z", "plain-1_x.y z"),
    ("..", "%2E%2E"),
    (".", "%2E"),
    ("../../etc/passwd", "%2E./../etc/passwd".replace("/", "%2F")),
    ("/abs", "%2Fabs"),
    ("a\\b", "a%5Cb"),
    ("C:", "C%3A"),
    ("", "__EMPTY__"),
    (" x ", "%20x%20"),
    (".hidden", "%2Ehidden"),
    ("end.", "end%2E"),
    ("a\nb\x00\x1b[31m\x7f", "a%0Ab%00%1B%5B31m%7F"),
    ("100%", "100%25"),
    ("a=b", "a%3Db"),
    ("*?[x]{y}", "%2A%3F%5Bx%5D%7By%7D"),
    ("é ü 日本", "é ü 日本"),
    ("right\u202eleft\u2028", "right%E2%80%AEleft%E2%80%A8"),
    ("US", "US"),
    ("us", "us"),
    (NULL, f"%5F{NULL[1:]}"),
    ("__EMPTY__", "%5F_EMPTY__"),
    (1, "1"),
    (1.5, "1.5"),
    (10**30, str(10**30)),
    (True, "true"),
    (None, NULL),
    ([1, "a"], "%5B1,%22a%22%5D"),
    ({"a": {}}, "%7B%22a%22%3A%7B%7D%7D"),
]


def test_values_are_safe_names_that_can_be_read_back(run, files):
    folder = files({"in.jsonl": "".join(json.dumps({"k": value}) + "\n" for value, _ in NAMES)})
    outcome = run("in.jsonl", "--to", "out/{k}.jsonl")
    assert outcome.code == 0, outcome.stderr
    made = {path: rows(data.decode()) for path, data in found(folder / "out").items()}
    assert made == {f"{name}.jsonl": [{"k": value}] for value, name in NAMES}
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out"]
    for value, name in NAMES:
        if type(value) is str and value:
            assert unquote(name) == value


def test_long_values_are_cut_and_stay_apart(run, files):
    values = ["x" * 5000 + end for end in "abc"] + ["é/" * 300, "x" * 249]
    folder = files({"in.jsonl": "".join(json.dumps({"k": value}) + "\n" for value in values)})
    assert run("in.jsonl", "--to", "{k}.jsonl.gz").code == 0
    made = found(folder, ".gz")
    assert sorted(rows(gzip.decompress(data).decode())[0]["k"] for data in made.values()) == sorted(
        values
    )
    assert all(len(os.fsencode(name)) <= 255 for name in made)
    assert all("~" in name for name in made)


def test_more_fields_paths_and_braces(run, files):
    folder = files(
        {"in.jsonl": '{"a":{"b":"x"},"c.d":"y","e/f":"z","l":[0,"w"]}\n[1]\n7\n{"a":[1]}\n'}
    )
    name = "o{{u}}t-{a.b}/{c.d}_{/e~1f}/{l.1}{{}}.jsonl"
    assert run("in.jsonl", "--to", name).code == 0
    assert {path: len(rows(data.decode())) for path, data in found(folder).items()} == {
        "in.jsonl": 4,
        "o{u}t-x/y_z/w{}.jsonl": 1,
        f"o{{u}}t-{NULL}/{NULL}_{NULL}/{NULL}{{}}.jsonl": 3,
    }


def test_braces_in_the_name_of_one_file_are_written_twice(run, files):
    folder = files({"in.jsonl": '{"a":1}\n'})
    assert run("in.jsonl", "--to", "o{{a}}.jsonl").code == 0
    assert (folder / "o{a}.jsonl").read_text() == '{"a":1}\n'


TIMES = [
    ("2026-01-31T23:30:00-05:00", "2026/02-01"),
    ("2026-01-31", "2026/01-31"),
    ("0987-01-31", "0987/01-31"),
    ("2026-01-31 08:00:00.5", "2026/01-31"),
    (1769860800, "2026/01-31"),
    (1769860800123, "2026/01-31"),
    ("1769860800", "2026/01-31"),
    (None, f"{NULL}"),
    ("soon", "__INVALID__"),
    (True, "__INVALID__"),
    (1e300, "__INVALID__"),
    ([], "__INVALID__"),
]


def test_times_are_in_utc_and_invalid_ones_have_a_file(run, files):
    folder = files({"in.jsonl": "".join(json.dumps({"t": value}) + "\n" for value, _ in TIMES)})
    assert run("in.jsonl", "--to", "out/{date:t:%Y/%m-%d}.jsonl").code == 0
    expected = defaultdict(list)
    for value, name in TIMES:
        expected[f"{name}.jsonl"].append({"t": value})
    made = {path: rows(data.decode()) for path, data in found(folder / "out").items()}
    assert made == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out/{a.jsonl", "a lone {"),
        ("out/{}.jsonl", "write {FIELD}"),
        ("out/{a..b}.jsonl", "is not a path"),
        ("out/{month:created}.jsonl", "write {FIELD} or {date:FIELD:FORMAT}"),
        ("out/{date:t}.jsonl", "a time needs a format"),
        ("out/{date:t:%Y/../%m}.jsonl", "cannot have an empty name"),
        ("out/{a}/../{b}.jsonl", "there cannot be an empty name"),
        ("out/{a}/", "out/{a}/rows.jsonl"),
        ("out/{a}", "unknown kind of target"),
        ("out/{a}.csv.gz", "unknown kind of target"),
        ("s3://{a}/b.jsonl", "a bucket cannot be a field"),
        ("out/" + "{a}" * 7 + ".jsonl", "longer than 255 bytes"),
    ],
)
def test_names_that_cannot_be(run, files, name, message):
    folder = files({"in.jsonl": '{"a":1}\n'})
    outcome = run("in.jsonl", "--to", name)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "replace"), "--mode replace is for databases"),
        (("--to-format", "json"), "are for folders"),
        (("--columns", "a"), "--columns is for .csv"),
        (("--watch",), "appears only at the end of a run"),
        (("--retry-failed",), "--retry-failed cannot add to"),
        (("--report", "out/r.jsonl"), "may be overwritten by a partition"),
        (("--dead-letter", "out/x.jsonl"), "may be overwritten by a partition"),
    ],
)
def test_options_that_do_not_go_together(run, files, options, message):
    files({"in/a.jsonl": '{"a":1}\n', "out/keep": ""})
    outcome = run("in", "--to", "out/{a}.jsonl", *options)
    assert outcome.code == 2
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ("in", "in/{a}.jsonl"),
        ("in", "in/b/{a}.jsonl"),
        ("in/a.jsonl", "in/{a}.jsonl"),
        ("in", "{a}/{b}.jsonl"),
    ],
)
def test_inputs_are_never_overwritten(run, files, inputs, name):
    text = '{"a":"in","b":"a"}\n'
    folder = files({"in/a.jsonl": text})
    outcome = run(inputs, "--to", name)
    assert outcome.code == 2
    assert "input" in outcome.stderr
    assert found(folder) == {"in/a.jsonl": text.encode()}


def test_partitions_without_rows_stay_and_others_are_replaced(run, files):
    folder = files({"1.jsonl": '{"a":"x"}\n{"a":"y"}\n', "2.jsonl": '{"a":"y","n":2}\n'})
    assert run("1.jsonl", "--to", "out/{a}.jsonl").code == 0
    assert run("2.jsonl", "--to", "out/{a}.jsonl").code == 0
    assert found(folder / "out") == {"x.jsonl": b'{"a":"x"}\n', "y.jsonl": b'{"a":"y","n":2}\n'}
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["x.jsonl", "y.jsonl"]


def test_a_spent_budget_leaves_what_was_there(run, files):
    folder = files({"in.jsonl": '{"a":"x"}\n{"a":"new"}\nnot JSON\n', "out/x.jsonl": "before"})
    outcome = run("in.jsonl", "--to", "out/{a}.jsonl", "--max-failures", "0")
    assert outcome.code != 0
    assert found(folder) == {
        "in.jsonl": (folder / "in.jsonl").read_bytes(),
        "out/x.jsonl": b"before",
    }


def test_a_full_disk_leaves_what_was_there(run, files):
    lines = "".join(json.dumps({"a": n % 3, "t": "x" * 400}) + "\n" for n in range(300))
    folder = files({"in.jsonl": lines, "out/0.jsonl": "before"})
    outcome = run("in.jsonl", "--to", "out/{a}.jsonl", prefix=LIMITED)
    assert outcome.code == 1
    assert "cannot write out/{a}.jsonl: File too large" in outcome.stdout
    assert found(folder / "out") == {"0.jsonl": b"before"}


def test_a_place_that_is_taken(run, files, tmp_path_factory):
    folder = files({"in.jsonl": '{"a":"x"}\n{"a":"y"}\n', "out/y.jsonl/file": ""})
    outcome = run("in.jsonl", "--to", "out/{a}.jsonl")
    assert outcome.code == 1
    assert "cannot write out/y.jsonl: Is a directory" in outcome.stdout
    assert not (folder / "out" / "x.jsonl").exists()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "out" / "y").symlink_to(elsewhere)
    outcome = run("in.jsonl", "--to", "out/{a}/rows.jsonl")
    assert outcome.code == 1
    assert "a symbolic link in the target folder leads to" in outcome.stdout
    assert list(elsewhere.iterdir()) == []


def test_many_partitions_need_few_open_files(run, files):
    folder = files(as_inputs([{"id": n, "k": n % 700} for n in range(2100)], 3))
    outcome = run("in", "--to", "out/{k}.jsonl.gz", "-j", "1", prefix=FEW_FILES)
    assert outcome.code == 0, outcome.stderr
    made = found(folder / "out", ".gz")
    assert len(made) == 700
    assert rows(gzip.decompress(made["7.jsonl.gz"]).decode()) == [
        {"id": n, "k": 7} for n in (7, 707, 1407)
    ]


def test_duplicates_are_those_of_one_file(run, files):
    records = [{"k": n % 40, "p": n % 3, "n": n} for n in range(300)]
    folder = files(as_inputs(records))
    for name in ("whole.jsonl", "out/{p}.jsonl", "out/{p}.csv"):
        assert run("in", "--dedupe", "k", "--to", name, "-j", "2").code == 0
    whole = rows((folder / "whole.jsonl").read_text())
    assert whole == records[:40]
    for p in range(3):
        kept = [record for record in whole if record["p"] == p]
        assert rows((folder / "out" / f"{p}.jsonl").read_text()) == kept
        with (folder / "out" / f"{p}.csv").open() as stream:
            assert [int(row["n"]) for row in csv.DictReader(stream)] == [r["n"] for r in kept]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv"])
def test_a_killed_run_is_resumed(run, files, tmp_path, suffix):
    inputs = {
        f"in/{n:03}.json": json.dumps([{"id": n, "k": f"{n % 4}/"}, {"id": n, "k": None}])
        for n in range(150)
    }
    folder = files({"fn.py": SLOW, "slow": "", "out/3%2F" + suffix: "before", **inputs})
    job = ("in", "--call", "fn.py:f", "--to", "out/{k}" + suffix, "--ledger", "l")
    first_batch = ("--load-batch", "3") if suffix == ".csv" else ()
    with CommandProcess(
        ["run", *job, "-q", "-b", "3", "-j", "1", *first_batch],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        wait_until(lambda: has_entries(tmp_path), running=process)
        process.kill()
    assert list(found(folder / "out", suffix).values()) == [b"before"], "nothing before the end"
    (folder / "slow").unlink()
    outcome = run(*job, "--resume", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    assert 0 < outcome.json["files"]["skipped"] < 150
    assert run("in", "--to", "fresh/{k}" + suffix).code == 0
    assert found(folder / "out", "") == found(folder / "fresh", ""), "and nothing else is left"
    again = run(*job, "--resume", "-o", "json")
    assert again.json["files"]["skipped"] == 0, "a finished run leaves no rows to copy"
    assert found(folder / "out", "") == found(folder / "fresh", "")


def has_entries(folder) -> bool:
    """Whether a run has recorded that an input is done."""
    if not (folder / "l").exists():
        return False
    with closing(sqlite3.connect(folder / "l")) as database, suppress(sqlite3.OperationalError):
        found = database.execute("SELECT 1 FROM asyncbatch_ledger LIMIT 1").fetchone()
        return found is not None
    return False


PIPELINE = """
name = "orders"

[[source]]
type = "files"
paths = ["in"]

[sink]
to = "out/{country}/{date:created:%Y}.jsonl"
"""


def test_pipeline_files_and_programs_take_such_a_target(run, etl, files):
    name = "{country}/{date:created:%Y}.jsonl"
    folder = files({**as_inputs(orders(100)), "p.toml": PIPELINE})
    assert run("in", "--to", f"fresh/{name}").code == 0
    finished = etl("p.toml")
    assert finished.returncode == 0, finished.stderr
    asyncio.run(Pipeline(folder / "in", sink=f"{folder}/program/{name}").run())
    expected = found(folder / "fresh")
    assert len(expected) == 8
    assert found(folder / "out") == found(folder / "program") == expected


def test_a_stream_has_one_file(stream):
    code, _, stderr = stream("simulate:", "--to", "out/{type}.jsonl", "--max-events", "1")
    assert code == 2
    assert "windows go into one file" in stderr


def test_a_field_that_no_record_has_is_noted(run, files):
    files({"in.jsonl": '{"a":1}\n'})
    outcome = run("in.jsonl", "--to", "out/{country}.jsonl", "-o", "json")
    assert any("no record has a value for a field" in note for note in outcome.json["notes"])


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".parquet"])
def test_partitions_in_a_store(run, files, s3, suffix):
    folder = files(as_inputs(orders(200)))
    s3.bucket("lake")
    assert run("in", "--to", "out/{country}/a" + suffix).code == 0
    outcome = run("in", "--to", "s3://lake/x/{country}/a" + suffix, env=s3.environment)
    assert outcome.code == 0, outcome.stderr
    made = {key.removeprefix("x/"): s3.get("lake", key) for key in s3.keys("lake")}
    assert made == found(folder / "out", "")
    assert s3.uploads("lake") == []
