"""Object stores as targets: each test against a real S3 API on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

import pytest

from asyncbatch.core.settings import StoreSettings
from asyncbatch.storage.stores import Stores
from asyncbatch.storage.uploads import ObjectWriter
from tests.commands import PATIENCE, CommandProcess, environment, run_command_text
from tests.processes import wait_until
from tests.servers.s3 import KEYS, S3Server

MIB = 1024 * 1024
ROWS = [{"id": number, "name": f"n {number}", "é": None} for number in range(50)]
INPUTS = {
    "in/1.json": json.dumps(ROWS[:20]),
    "in/2.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS[20:]),
    "in/sub/3 ü %20#+?.json": '{"id": 51, "name": "a,\\"b\\"", "é": 1.5}',
}
_NUMBERS = count()


class Bucket(str):
    """The URL of a bucket, and access to its objects."""

    __slots__ = ("s3",)
    s3: S3Server

    @property
    def name(self) -> str:
        return self.removeprefix("s3://").rstrip("/")

    def put(self, key, body):
        self.s3.put(self.name, key, body)

    def get(self, key):
        return self.s3.get(self.name, key)

    def keys(self):
        return self.s3.keys(self.name)

    def uploads(self):
        return self.s3.uploads(self.name)


@pytest.fixture
def store(s3):
    bucket = Bucket(s3.bucket(f"bucket-{next(_NUMBERS)}"))
    bucket.s3 = s3
    return bucket


@pytest.fixture
def put(run, s3):
    """Run `asyncbatch run` with the store's credentials."""
    return lambda *arguments, **more: run(*arguments, env=s3.environment, **more)


def lines(mebibytes: float) -> bytes:
    """Return JSON Lines of the given size in MiB."""
    return b"".join(
        b'{"id": %d, "text": "%s"}\n' % (number, b"x" * 4070)
        for number in range(int(mebibytes * 256))
    )


def started(folder, s3, *arguments, **options):
    return CommandProcess(
        ["run", *arguments], cwd=folder, env=environment(**s3.environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "name", ["o.jsonl", "o.ndjson.gz", "o.jsonl.zst", "o.csv", "o.tsv", "o.parquet"]
)
def test_an_object_is_what_the_file_would_be(put, files, s3, store, name):
    folder = files(INPUTS)
    assert put("in", "--to", name).code == 0
    outcome = put("in", "--to", f"{store}deep/er/{name}", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["records"]["written"] == 51
    assert store.get(f"deep/er/{name}") == (folder / name).read_bytes()
    assert store.uploads() == []


def test_parquet_that_is_widened(put, files, s3, store):
    """A row group is written first, which could not be read back from the store."""
    folder = files({
        "1.jsonl": '{"id": 1}\n' * 100_000,
        "2.jsonl": '{"id": 2, "more": "x"}\n{"id": 2.5}\n',
    })  # fmt: skip
    assert put(".", "--to", "o.parquet").code == 0
    outcome = put(".", "--to", f"{store}o.parquet", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    assert store.get("o.parquet") == (folder / "o.parquet").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--workers", "2"),
        ("--to-format", "jsonl", "--to-compression", "gz"),
        ("--call", "same.py:same", "--workers", "2"),
        ("--call", "same.py:same_later"),
    ],
)
def test_a_folder_is_mirrored(put, files, s3, store, options):
    code = "def same(x): return x\nasync def same_later(x): return x\n"
    folder = files(INPUTS | {"same.py": code, "in/bad.json": '{"id": '})
    local = put("in", "--to", "out/", "-o", "json", *options)
    outcome = put("in", "--to", f"{store}clean/", "-o", "json", *options)
    assert (local.code, outcome.code) == (1, 1), outcome.stderr
    for part in ("files", "records", "failures", "status"):
        assert outcome.json[part] == local.json[part]
    expected = below(folder / "out")
    assert len(expected) == 3
    assert {key: store.get(f"clean/{key}") for key in expected} == expected
    assert store.keys() == sorted(f"clean/{key}" for key in expected)
    assert store.uploads() == []


def test_objects_of_a_folder_are_put_side_by_side(put, files, s3, store):
    files({f"in/{number}.json": "{}" for number in range(40)})
    s3.hold(5, "PUT")
    assert put("in", "--to", store, "--workers", "0").code == 0
    assert s3.most_at_once > 4


def test_a_large_object_comes_in_parts(put, files, s3, store):
    folder = files({"in.jsonl": lines(40)})
    s3.fail(500, method="POST", path=r"o\.jsonl\?uploads")
    s3.fail(503, "SlowDown", times=3, method="PUT", path="partNumber=2")
    s3.reset(method="PUT", path="partNumber=1")
    s3.fail(500, method="POST", path="uploadId=")
    outcome = put("in.jsonl", "--to", f"{store}o.jsonl")
    assert outcome.code == 0, outcome.stderr
    assert put("in.jsonl", "--to", "o.jsonl").code == 0
    assert store.get("o.jsonl") == (folder / "o.jsonl").read_bytes()
    parts = {one.query["partNumber"] for one in s3.asked("PUT") if "partNumber" in one.query}
    assert parts == {"1", "2", "3"}
    assert store.uploads() == []


def test_a_part_may_take_longer_than_an_answer(s3, store, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = StoreSettings(timeout=0.3)
    new = ObjectWriter(Stores(settings, writes=True).location(f"{store}a"), f"{store}a")
    new.write(b"x")
    s3.slow(1.0, method="PUT")
    assert new.complete().size == 1
    assert len(s3.asked("PUT")) == 1


def test_from_one_prefix_into_another(put, s3, store):
    for number in range(30):
        store.put(f"exports/{number:02}.json", f'{{"id": {number}}}')
    options = (f"{store}exports/", "--to", f"{store}clean/", "--root", f"{store}exports")
    first = put(*options, "--workers", "2", "-o", "json")
    assert first.code == 0, first.stderr
    assert first.json["records"]["written"] == 30
    store.put("exports/07.json", '{"id": "changed"}')
    s3.client.delete_object(Bucket=store.name, Key="clean/08.json")
    s3.forget()
    again = put(*options, "--resume", "-o", "json").json["files"]
    assert (again["succeeded"], again["skipped"]) == (2, 28)
    assert sorted(one.path for one in s3.asked("PUT")) == [
        f"/{store.name}/clean/07.json",
        f"/{store.name}/clean/08.json",
    ]
    assert json.loads(store.get("clean/07.json")) == {"id": "changed"}


def test_a_large_output_of_a_folder(put, files, s3, store):
    folder = files({"in/a.jsonl": lines(20), "in/b.json": "[1, 2]"})
    assert put("in", "--to", "out/").code == 0
    outcome = put("in", "--to", f"{store}out/")
    assert outcome.code == 0, outcome.stderr
    assert {key: store.get(f"out/{key}") for key in below(folder / "out")} == below(folder / "out")
    assert store.uploads() == []


@pytest.mark.parametrize("size", [0.1, 40])
def test_a_store_that_is_lost_midway(put, files, s3, store, size):
    files({"in.jsonl": lines(size)})
    store.put("o.jsonl", "old")
    s3.fail(403, "AccessDenied", times=100, method="PUT", path=r"o\.jsonl")
    outcome = put(
        "in.jsonl", "--to", f"{store}o.jsonl", "-o", "json", "--dead-letter", f"{store}dead.jsonl"
    )
    assert outcome.code == 1
    assert outcome.json["status"] == "failed"
    failure = outcome.json["failures"][0]
    assert (failure["kind"], failure["file"]) == ("sink", f"{store}o.jsonl")
    assert failure["message"] == (
        f"cannot write {store}o.jsonl: not permitted (the store says 403 AccessDenied)"
    )
    assert outcome.json["records"]["written"] == 0
    assert store.get("o.jsonl") == b"old"
    assert store.get("dead.jsonl") == b""
    assert store.uploads() == []


def test_a_folder_that_is_lost_midway(put, files, s3, store):
    files({f"in/{number:03}.json": "{}" for number in range(300)})
    s3.fail(403, "AccessDenied", times=1000, method="PUT", path=r"/1\d\d\.json")
    outcome = put("in", "--to", store, "-b", "10", "--workers", "0", "-o", "json")
    assert outcome.code == 1
    assert outcome.json["status"] == "failed"
    messages = {failure["message"] for failure in outcome.json["failures"]}
    assert all(re.search(r"in/1\d\d\.json: not permitted", message) for message in messages)
    assert outcome.json["files"]["succeeded"] >= 100
    assert outcome.json["records"]["written"] == len(store.keys())


@pytest.mark.parametrize("options", [("--workers", "0"), ("--call", "same.py:same_later")])
def test_an_output_that_the_store_refuses(put, files, s3, store, options):
    files(INPUTS | {"same.py": "async def same_later(x): return x\n", "in/bad.jsonl": "{}\n{"})
    s3.fail(400, "KeyTooLongError", method="PUT", path="2.jsonl")
    outcome = put(
        "in", "--to", store, "-o", "json", "--dead-letter", f"{store}dead.jsonl", *options
    )
    assert outcome.code == 1
    assert outcome.json["files"] | {"bytes": 0} == {
        "total": 4, "succeeded": 2, "partial": 1, "failed": 1, "skipped": 0, "bytes": 0,
    }  # fmt: skip
    assert outcome.json["records"] == {
        "read": 23, "passed": 22, "dropped": 0, "rejected": 1, "written": 22
    }  # fmt: skip
    (failure,) = (one for one in outcome.json["failures"] if one["kind"] == "sink")
    assert failure["file"] == "in/2.jsonl"
    assert failure["message"].endswith("the store refused (400 KeyTooLongError)")
    kept = [json.loads(line)["file"] for line in store.get("dead.jsonl").splitlines()]
    assert kept == ["in/2.jsonl", "in/bad.jsonl"]


def test_names_that_no_object_can_have(put, files, store):
    folder = files({"in/good.json": "{}"})
    (folder / "in" / "bad\udcff.json").write_text("{}")
    outcome = put("in", "--to", store, "-o", "json")
    assert outcome.code == 1, outcome.stderr
    (failure,) = outcome.json["failures"]
    assert (failure["kind"], failure["file"]) == ("sink", r"in/bad\xff.json")
    assert outcome.json["files"]["succeeded"] == 1


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_spent_budget_leaves_what_was_there(put, files, s3, store, name):
    files({"1.json": '{"a": 1}', "2.json": "{"})
    store.put(name, "old")
    outcome = put(".", "--to", f"{store}{name}", "--fail-fast", "--dead-letter", f"{store}d.jsonl")
    assert outcome.code == 1
    assert store.get(name) == b"old"
    assert json.loads(store.get("d.jsonl"))["file"] == "./2.json"
    assert store.uploads() == []


def test_an_interrupted_upload(s3, store, tmp_path):
    """The upload is aborted; dead letters and the report are written."""
    store.put("o.jsonl", "old")
    process = started(
        tmp_path, s3, "-", "--to", f"{store}o.jsonl", "--grace", "1", "--dead-letter",
        f"{store}dead.jsonl", "--report", f"{store}r/report.json", "--format", "jsonl",
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"{\n" + lines(40))
    process.stdin.flush()
    wait_until(lambda: s3.asked("PUT", r"o\.jsonl"))
    assert store.uploads() == ["o.jsonl"]
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE)  # the input is still open
    process.communicate()
    assert process.returncode == 130
    assert store.get("o.jsonl") == b"old"
    assert store.uploads() == []
    assert json.loads(store.get("dead.jsonl"))["line"] == 1
    report = json.loads(store.get("r/report.json"))
    assert (report["status"], report["exit_code"]) == ("interrupted", 130)


def test_an_upload_that_is_stuck(s3, store, files):
    """A store that accepts nothing slows reading down, and does not delay the end."""
    folder = files({"in.jsonl": lines(200)})
    s3.slow(3600, times=100, method="PUT", path="partNumber")
    process = started(folder, s3, "in.jsonl", "--to", f"{store}o.jsonl", "--grace", "1")
    wait_until(lambda: len(s3.asked("PUT", "o.jsonl")) == 4)  # the limit of uploads at a time
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert b"Traceback" not in stderr
    assert len(s3.asked("PUT", "o.jsonl")) == 4
    assert store.keys() == []


@pytest.mark.parametrize("call", ["call.py:later", "call.py:slowly"])
def test_interrupted_outputs_of_a_folder(s3, store, files, call):
    """The grace period ends while objects are uploaded."""
    contents = {"in/1.jsonl": lines(30), "in/2.jsonl": lines(30)}
    code = """
import asyncio, os, time
def is_held(x):
    return x["id"] >= 5000 and os.path.exists("hold")
def slowly(x):
    while is_held(x):
        time.sleep(0.01)
    return x
async def later(x):
    while is_held(x):
        await asyncio.sleep(0.01)
    return x
"""
    folder = files(contents | {"call.py": code, "hold": ""})
    process = started(
        folder, s3, "in", "--to", f"{store}out/", "--grace", "0.5", "--workers", "2",
        "--call", call,
    )  # fmt: skip
    wait_until(lambda: s3.asked("PUT", "out"))
    assert store.uploads()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert store.uploads() == []
    assert store.keys() == []


def test_a_killed_run_leaves_what_was_there(s3, store, tmp_path):
    store.put("o.jsonl", "old")
    process = started(tmp_path, s3, "-", "--to", f"{store}o.jsonl", "--format", "jsonl")
    assert process.stdin is not None
    process.stdin.write(lines(40))
    process.stdin.flush()
    wait_until(lambda: s3.asked("PUT", r"o\.jsonl"))
    process.kill()
    process.communicate()
    assert store.get("o.jsonl") == b"old"
    assert store.uploads() == ["o.jsonl"]  # as docs/cloud.md says: for a lifecycle rule


def test_a_killed_folder_is_carried_on(put, files, s3, store):
    folder = files({f"in/{number:03}.json": f'{{"id": {number}}}' for number in range(120)})
    s3.delay = 0.02
    options = ("in", "--to", f"{store}out/", "-b", "5", "--workers", "0")
    process = started(folder, s3, *options, "--ledger", "l.ledger")
    wait_until(lambda: len(s3.asked("PUT")) > 40)
    time.sleep(1.2)  # the ledger is written once a second
    process.kill()
    process.communicate()
    s3.forget()
    outcome = put(*options, "--ledger", "l.ledger", "--resume", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    found = outcome.json["files"]
    assert found["skipped"] + found["succeeded"] == 120
    assert len(s3.asked("PUT", "/out/in/")) == found["succeeded"] <= 120
    assert {json.loads(store.get(key))["id"] for key in s3.keys(store.name)} == set(range(120))


def test_only_what_has_changed_is_put_again(put, files, s3, store):
    folder = files(
        {f"in/{number}.json": f'{{"id": {number}}}' for number in range(8)}
        | {f"in/sub/{number}.json": f'{{"id": {number}}}' for number in range(8)}
    )
    options = ("in", "--to", f"{store}out/", "--jq", "select(.id != 7)")
    assert put(*options, "--resume").code == 0
    assert len(store.keys()) == 14
    (folder / "in/1.json").write_text('{"id": "changed"}')
    store.put("out/in/2.json", '{"id":5}\n')  # of the same size
    s3.client.delete_object(Bucket=store.name, Key="out/in/sub/3.json")
    s3.forget()
    outcome = put(*options, "--resume", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["files"]["skipped"] == 13
    redone = sorted(one.path for one in s3.asked("PUT"))
    assert redone == [f"/{store.name}/out/in/{name}.json" for name in ("1", "2", "sub/3")]
    assert len(s3.asked("GET")) == 2  # one listing for each folder, no request for each object
    assert json.loads(store.get("out/in/1.json")) == {"id": "changed"}
    assert json.loads(store.get("out/in/2.json")) == {"id": 2}


def test_a_folder_whose_state_cannot_be_seen(put, files, s3, store):
    files({"in/1.json": "{}"})
    assert put("in", "--to", store).code == 0
    s3.fail(403, "AccessDenied", times=9, path="list-type")
    outcome = put("in", "--to", store, "--resume")
    assert outcome.code == 2
    assert "cannot list" in outcome.stderr
    assert "--force" in outcome.stderr
    assert put("in", "--to", store, "--force").code == 0


@pytest.mark.parametrize("name", ["report.json", "report.jsonl", "report.xml", "report.md"])
def test_reports_are_objects(put, files, s3, store, name):
    folder = files({"in/1.json": "{}", "in/2.json": "{"})
    assert put("in", "--report", f"{store}{name}", "--report", name).code == 1
    pattern = rb"[\d.]+ ?(s|ms|kB|MB|B)\b|\d+(\.\d+)?|\d{4}-\S+Z"
    found, local = store.get(name), (folder / name).read_bytes()
    assert re.sub(pattern, b"N", found) == re.sub(pattern, b"N", local)
    assert store.uploads() == []


def test_a_report_that_is_lost(put, files, s3, store):
    files({"in/1.json": "{}"})
    s3.fail(403, "AccessDenied", method="PUT", path="r.json", times=9)
    outcome = put("in", "--report", f"{store}r.json", "-o", "json")
    assert outcome.code == 1
    (failure,) = outcome.json["failures"]
    assert (failure["kind"], failure["file"]) == ("sink", f"{store}r.json")


@pytest.mark.parametrize(
    "options",
    [
        ("--to", "s3://no-such-bucket/o.jsonl"),
        ("--to", "s3://no-such-bucket/o.parquet"),
        ("--to", "s3://no-such-bucket/folder/"),
        ("--to", "s3://no-such-bucket"),
        ("--dead-letter", "s3://no-such-bucket/d.jsonl"),
        ("--report", "s3://no-such-bucket/r.json"),
    ],
)
def test_a_bucket_that_is_not_there(put, files, s3, options):
    files({"in/1.json": "{}"})
    outcome = put("in", *options)
    assert outcome.code == 2
    assert "there is no bucket 'no-such-bucket'" in outcome.stderr
    assert options[1].rstrip("/") in outcome.stderr


@pytest.mark.parametrize("name", ["o.csv", "folder/"])
def test_a_target_that_may_not_be_written(put, files, s3, store, name):
    files({"in/1.json": "{}"})
    s3.fail(403, "AccessDenied", method="POST", path="uploads")
    outcome = put("in", "--to", f"{store}{name}")
    assert outcome.code == 2
    assert f"cannot write {store}{name}: not permitted" in outcome.stderr
    assert store.keys() == []


@pytest.mark.parametrize(
    ("to", "options", "words"),
    [
        ("s3://b/x.db", ("--table", "t"), "a database cannot be in an object store"),
        ("gs://b/x.duckdb", (), "a database cannot be in an object store"),
        ("sqlite:///s3://b/x.db", ("--table", "t"), "a database cannot be in an object store"),
        ("duckdb:///az://b/x", ("--table", "t"), "a database cannot be in an object store"),
        ("https://host/o.jsonl", (), "a web server can be read but not written"),
        ("s3://b/o.txt", (), "unknown kind of target"),
        ("s3://b/o.csv.gz", (), "unknown kind of target"),
        ("s3:///o.csv", (), "names no bucket"),
        ("s3://key:SECRET@b/o.csv", (), "a bucket URL cannot contain credentials"),
        ("s3://b/o.csv", ("--table", "t"), "--table is for databases"),
        ("s3://b/o.jsonl", ("--resume",), "each run writes s3://b/o.jsonl again"),
        ("s3://b/o.jsonl", ("--retry-failed",), "each run writes s3://b/o.jsonl again"),
        ("s3://b/o.csv", ("--ledger", "l"), "write to a folder (s3://b/o/)"),
        ("s3://b//o.csv", (), "an empty name, . or .. in it"),
    ],
)
def test_what_cannot_be_meant(put, files, to, options, words):
    files({"in/1.json": "{}"})
    outcome = put("in", "--to", to, *options)
    assert outcome.code == 2
    assert words in " ".join(outcome.stderr.split())
    assert "SECRET" not in outcome.stderr


def test_outputs_that_are_one_object(put, files, store):
    files({"in/1.json": "{}"})
    outcome = put("in", "--to", f"{store}o.jsonl", "--dead-letter", f"{store}o.jsonl")
    assert outcome.code == 2
    assert "name the same file" in outcome.stderr


def test_outputs_that_would_be_inputs(put, s3, store):
    store.put("in/1.json", "{}")
    outcome = put(store, "--to", f"{store}out/")
    assert outcome.code == 2
    assert "is inside the input folder" in outcome.stderr
    assert put(store, "--to", f"{store}out/", "--exclude", "out").code == 0
    assert put(f"{store}in/", "--to", f"{store}clean/", "--root", f"{store}in/").code == 0
    assert store.get("clean/1.json") == b"{}\n"
    for options in (("--to", f"{store}o.jsonl"), ("--dead-letter", f"{store}o.jsonl")):
        store.put("o.jsonl", "{}")
        outcome = put(f"{store}o.jsonl", *options)
        assert outcome.code == 2
        assert "is an input: it cannot be written to" in outcome.stderr
    outcome = put(f"{store}in/", "--to", f"{store}in/", "--root", f"{store}in/")
    assert outcome.code == 2


def test_secrets_are_shown_nowhere(put, files, s3, store, tmp_path):
    files({"in/1.json": "{}"})
    s3.fail(403, "SignatureDoesNotMatch", times=9, method="PUT")
    outcome = put("in", "--to", store, "-v", "--report", "r.json", "--ledger", "l.ledger")
    assert outcome.code == 1
    kept = [outcome.stdout.encode(), outcome.stderr.encode(), *below(tmp_path).values()]
    assert len(kept) >= 4
    assert not [text for text in kept if KEYS[1].encode() in text or b"Signature=" in text]


PIPELINE = """
name = "people"
[[source]]
type = "files"
paths = ["in"]
[sink]
to = "TO"
[dead_letter]
to = "DEAD"
"""


@pytest.mark.parametrize("name", ["o.jsonl", "out/"])
def test_sinks_of_pipeline_files(files, s3, store, name):
    pipeline = PIPELINE.replace("TO", store + name).replace("DEAD", f"{store}dead.jsonl")
    folder = files(INPUTS | {"p.toml": pipeline, "in/bad.jsonl": "{}\n{\n"})

    def etl(*arguments):
        return run_command_text("etl", "p.toml", *arguments, cwd=folder, env=s3.environment)

    assert etl("--check").returncode == 0
    assert s3.requests == 0
    outcome = etl("--report", f"{store}r.json", "-o", "json")
    assert outcome.returncode == 1, outcome.stderr
    assert json.loads(outcome.stdout)["records"]["written"] == 52
    assert json.loads(store.get("r.json"))["exit_code"] == 1
    assert json.loads(store.get("dead.jsonl"))["file"] == "in/bad.jsonl"
    again = json.loads(etl("-o", "json").stdout)
    assert again["files"]["skipped"] == (4 if name == "out/" else 0)
    if name == "o.jsonl":
        assert len(store.get(name).splitlines()) == 52
    assert store.uploads() == []


def test_a_pipeline_file_with_a_database_in_a_store(etl, files):
    files({"p.toml": PIPELINE.replace("TO", "s3://b/people.db"), "in/1.json": "{}"})
    outcome = etl("p.toml", "--check")
    assert outcome.returncode == 2
    assert "a database cannot be in an object store" in outcome.stderr
