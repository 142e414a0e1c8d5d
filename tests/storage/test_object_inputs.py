"""Object stores as inputs, against a real S3 API on loopback, and single objects of web servers."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from asyncbatch.core.paths import join_url, parse_address, redact_url
from asyncbatch.errors import UsageError
from asyncbatch.sources.identity import InputNaming, identity
from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until
from tests.servers.s3 import KEYS

COUNT = itertools.count()


@pytest.fixture
def bucket(s3):
    """Create a bucket with these objects and return its name."""

    def make(objects: Mapping[str, bytes | str]) -> str:
        name = f"bucket-{next(COUNT)}"
        if len(objects) > 50:
            s3.many(name, list(objects), str(next(iter(objects.values()))))
        else:
            s3.bucket(name, dict(objects))
        s3.forget()
        return name

    return make


@pytest.fixture
def cloud(run, s3):
    """Run `asyncbatch run` against the S3 server on loopback; return its report."""

    def _cloud(*arguments, env: Mapping[str, str] | None = None, **more: Any):
        return run(*arguments, env={**s3.environment, **(env or {})}, **more)

    return _cloud


def report(outcome) -> dict[str, Any]:
    assert KEYS[1] not in outcome.stdout + outcome.stderr
    found: dict[str, Any] = outcome.json
    return found


def names(outcome) -> list[str]:
    return [event["file"] for event in outcome.events if event["event"] in ("file", "planned")]


def failures(outcome) -> dict[str, tuple[str, str]]:
    return {one["file"]: (one["kind"], one["message"]) for one in report(outcome)["failures"]}


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "parts"),
        [
            ("s3://b/a/c.json", ("s3", "b", "a/c.json")),
            ("gs://b", ("gs", "b", "")),
            ("az://b/a/", ("az", "b", "a/")),
            ("s3://b/a b?x=1#y%20", ("s3", "b", "a b?x=1#y%20")),
            ("https://h/p/a.json?q=1", ("https", "h/p/a.json?q=1", "")),
        ],
    )
    def test_are_parsed(self, url, parts):
        assert parse_address(url) == parts

    @pytest.mark.parametrize("url", ["s3://", "s3:///k", "ftp://h/k", "https://", "a/b.json"])
    def test_that_cannot_be_meant(self, url):
        with pytest.raises(UsageError):
            parse_address(url)

    def test_with_credentials_are_refused_without_showing_them(self):
        with pytest.raises(UsageError) as caught:
            parse_address("s3://me:geheim@b/k")
        assert "geheim" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("s3://b/k?X-Amz-Signature=abc", "s3://b/k?X-Amz-Signature=abc"),
            ("https://h/k?X-Amz-Signature=abc&v=1", "https://h/k?X-Amz-Signature=***&v=1"),
            ("https://me:geheim@h/k", "https://me:***@h/k"),
        ],
    )
    def test_are_shown_without_secrets(self, url, shown):
        assert redact_url(url) == shown

    def test_are_joined_and_taken_apart(self):
        assert join_url("s3://b/x/", "y.json") == "s3://b/x/y.json"
        assert join_url("s3://b", "y.json") == "s3://b/y.json"

    def test_are_identities(self):
        assert identity("s3://b/x/y.json") == "s3://b/x/y.json"
        assert identity("s3://b/x/y.json", "s3://b/x") == "y.json"
        assert identity("https://h/k?sig=abc") == "https://h/k?sig=***"
        with pytest.raises(UsageError, match="not below --root"):
            identity("s3://b/xy.json", "s3://b/x")
        with pytest.raises(UsageError, match="not below --root"):
            identity("a.json", "s3://b/x")

    def test_are_told_from_names_of_other_sources(self):
        assert InputNaming(None, "").path("s3://b/k") == "s3://b/k"
        assert (
            InputNaming(None, "one//").path(InputNaming(None, "one//").name("s3://b/k"))
            == "s3://b/k"
        )
        assert InputNaming(None, "").path("one//s3://b/k") is None
        assert InputNaming("s3://b/x", "").path("k") == "s3://b/x/k"


class TestListing:
    def test_of_more_than_a_page(self, cloud, bucket, s3):
        keys = [f"{number:04}.json" for number in range(1003)]
        name = bucket(dict.fromkeys(keys, "1"))
        outcome = cloud(f"s3://{name}/", "--dry-run", "-o", "jsonl")
        assert names(outcome) == [f"s3://{name}/{key}" for key in keys]
        assert [one.method for one in s3.seen] == ["GET", "GET"]
        # A page that fails once is requested again.
        s3.fail(503, "SlowDown", path="continuation-token")
        outcome = cloud(f"s3://{name}/", "--dry-run", "-o", "jsonl")
        assert names(outcome) == [f"s3://{name}/{key}" for key in keys]
        # A page that always fails is a failure of its own.
        s3.fail(403, "ExpiredToken", path="continuation-token")
        outcome = cloud(f"s3://{name}/", "--dry-run", "-o", "json")
        told = "could not be listed to its end: not permitted (the store says 403 ExpiredToken)"
        assert failures(outcome) == {f"s3://{name}/": ("permission", told)}
        assert report(outcome)["files"]["total"] == 1001

    def test_brings_what_is_to_be_known_and_connections_are_kept(self, cloud, bucket, s3):
        keys = [f"{number:03}.json" for number in range(300)]
        name = bucket(dict.fromkeys(keys, "1"))
        outcome = cloud(f"s3://{name}/", "-o", "jsonl", "--workers", "0", "--read-ahead", "8")
        assert outcome.code == 0
        assert sorted(names(outcome)) == [f"s3://{name}/{key}" for key in keys]
        assert s3.requests == 1 + 300
        assert s3.connections <= 12

    def test_takes_what_it_is_told_to(self, cloud, bucket):
        keys = ["a.json", "b.txt", ".h.json", "sub/c.jsonl", "sub/.d/e.json", "x/f.json"]
        name = bucket({f"in/{key}": "1" for key in keys} | {"inner.json": "1"})
        url = f"s3://{name}/in"

        def found(*arguments: str) -> list[str]:
            outcome = cloud(*arguments, "--dry-run", "-o", "jsonl")
            return [one.removeprefix(url + "/") for one in names(outcome)]

        assert found(url) == found(f"{url}/") == ["a.json", "sub/c.jsonl", "x/f.json"]
        assert found(url, "--pattern", "*.txt") == ["b.txt"]
        assert found(url, "--pattern", "sub/*") == ["sub/c.jsonl"]
        assert found(url, "--exclude", "sub", "--exclude", "a*") == ["x/f.json"]
        assert found(url, "--exclude", "x/*.json") == ["a.json", "sub/c.jsonl"]
        assert found(url, "--hidden") == sorted(set(keys) - {"b.txt"})
        assert found(url, "--limit", "2") == ["a.json", "sub/c.jsonl"]
        shards = [found(url, "--shard", f"{part}/2") for part in (1, 2)]
        assert sorted(itertools.chain(*shards)) == ["a.json", "sub/c.jsonl", "x/f.json"]
        assert found(f"{url}/b.txt") == ["b.txt"]
        assert found(url, f"{url}/a.json", f"{url}/sub/") == ["a.json", "sub/c.jsonl", "x/f.json"]

    def test_of_patterns_in_keys(self, cloud, bucket, s3):
        keys = ["2024-01/a.json", "2024-02/a.json", "2024-02/b.txt", "2024-02/d/c.json", "z/a.json"]
        name = bucket(dict.fromkeys([*keys, "[x]*.json"], "1"))

        def found(pattern: str) -> list[str]:
            outcome = cloud(f"s3://{name}/{pattern}", "--dry-run", "-o", "jsonl")
            return [one.removeprefix(f"s3://{name}/") for one in names(outcome)]

        assert found("2024-*/*.json") == ["2024-01/a.json", "2024-02/a.json"]
        assert found("2024-0[2-9]/*") == ["2024-02/a.json", "2024-02/b.txt", "2024-02/d/c.json"]
        assert found("2024-*") == ["2024-01/a.json", "2024-02/a.json", "2024-02/d/c.json"]
        assert found("**/a.json") == ["2024-01/a.json", "2024-02/a.json", "z/a.json"]
        assert found("[x]*.json") == ["[x]*.json"]
        s3.forget()
        found("2024-*/*.json")
        assert not [one for one in s3.seen if one.query.get("prefix") == "z/"]

    def test_with_names_of_all_kinds(self, cloud, bucket):
        keys = ["a b.json", "ü/日本.json", "100%25.json", "q?x=1&y#z.json", "p+l'us~.json"]
        name = bucket(dict.fromkeys(keys, "1"))
        outcome = cloud(f"s3://{name}/", "-o", "jsonl")
        assert outcome.code == 0
        assert sorted(names(outcome)) == sorted(f"s3://{name}/{key}" for key in keys)
        outcome = cloud(*(f"s3://{name}/{key}" for key in keys), "-o", "json")
        assert report(outcome)["files"]["succeeded"] == len(keys)

    def test_tells_of_keys_that_cannot_be_asked_for(self, cloud, bucket):
        name = bucket({"a.json": "1", "p//x.json": "1", "p/y.json": "1", "q/r/z.json": "1"})
        outcome = cloud(f"s3://{name}/", "-o", "json")
        ((file, (kind, message)),) = failures(outcome).items()
        assert (file, kind) == (f"s3://{name}/p/", "read_error")
        assert "empty name (//)" in message
        assert report(outcome)["files"]["succeeded"] == 2
        assert outcome.code == 1

    def test_beside_files_and_in_lists(self, cloud, bucket, files):
        name = bucket({"in/a.json": "1", "in/b.json": "2"})
        folder = files({"local/c.json": "3"})
        (folder / "list").write_text(f"s3://{name}/in/b.json\nlocal/c.json\ns3://{name}/in/\n")
        outcome = cloud("local", f"s3://{name}/in/a.json", "--files-from", "list", "-o", "jsonl")
        assert names(outcome) == [
            "local/c.json", f"s3://{name}/in/a.json", f"s3://{name}/in/b.json",
        ]  # fmt: skip


class TestMissing:
    def test_objects_are_failures_and_the_rest_runs(self, cloud, bucket):
        name = bucket({"a.json": "1"})
        outcome = cloud(f"s3://{name}/no.json", f"s3://{name}/a.json", "-o", "json")
        assert failures(outcome) == {f"s3://{name}/no.json": ("not_found", "no such object")}
        assert report(outcome)["files"]["succeeded"] == 1
        assert outcome.code == 1

    def test_prefixes_match_nothing(self, cloud, bucket):
        name = bucket({"a.json": "1"})
        outcome = cloud(f"s3://{name}/no/")
        assert outcome.code == 2
        assert f"no JSON files in s3://{name}/no/" in outcome.stderr

    def test_buckets_end_it_only_if_there_is_nothing_else(self, cloud, bucket):
        outcome = cloud("s3://no-such-bucket/in/")
        assert (outcome.code, outcome.stdout) == (2, "")
        assert "there is no bucket 'no-such-bucket'" in outcome.stderr
        name = bucket({"a.json": "1"})
        outcome = cloud("s3://no-such-bucket/in/", f"s3://{name}/", "-o", "json")
        told = failures(outcome)["s3://no-such-bucket/in/"]
        assert told == ("not_found", "there is no bucket 'no-such-bucket'")
        assert report(outcome)["files"]["succeeded"] == 1

    def test_credentials(self, run, s3, bucket, tmp_path):
        name = bucket({"a.json": "1"})
        env = {"HOME": str(tmp_path), "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}
        outcome = run(f"s3://{name}/", "--endpoint", s3.url, env=env)
        assert outcome.code == 2
        assert "no credentials for S3 were found" in outcome.stderr

    def test_permission(self, cloud, bucket, s3):
        name = bucket({"a.json": "1"})
        s3.fail(403, "AccessDenied", times=9)
        outcome = cloud(f"s3://{name}/")
        assert outcome.code == 2
        assert "not permitted (the store says 403 AccessDenied)" in outcome.stderr
        assert s3.requests == 1

    @pytest.mark.parametrize("url", ["s3://", "s3://u:geheim@b/x", "s3://b*/x"])
    def test_sense(self, cloud, url):
        outcome = cloud(url)
        assert outcome.code == 2
        assert "geheim" not in outcome.stderr

    def test_package(self, cloud, tmp_path):
        (tmp_path / "obstore.py").write_text("raise ImportError")
        outcome = cloud(
            "s3://b/x/", env={"PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"}
        )
        assert outcome.code == 2
        assert "pip install 'asyncbatch[cloud]'" in outcome.stderr


class TestReaching:
    def test_anonymously(self, run, s3, bucket):
        name = bucket({})
        s3.client.put_object(Bucket=name, Key="a.json", Body=b"1", ACL="public-read")
        outcome = run(f"s3://{name}/a.json", "--anonymous", "--endpoint", s3.url)
        assert outcome.code == 0
        assert not [one for one in s3.seen if "Authorization" in one.headers]

    def test_with_the_keys_and_region_of_a_profile(self, run, s3, bucket, tmp_path):
        name = bucket({"a.json": "1"})
        (tmp_path / "keys").write_text(
            f"[work]\naws_access_key_id = {KEYS[0]}\naws_secret_access_key = {KEYS[1]}\n"
        )
        (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\n")
        env = {
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_PROFILE": "work",
        }
        outcome = run(f"s3://{name}/a.json", "--endpoint", s3.url, env=env)
        assert outcome.code == 0
        assert f"{KEYS[0]}/" in s3.seen[0].headers["Authorization"]
        assert "eu-west-3" in s3.seen[0].headers["Authorization"]
        outcome = run(f"s3://{name}/a.json", env=env | {"AWS_PROFILE": "play"})
        assert outcome.code == 2
        assert "no profile 'play'" in outcome.stderr

    def test_with_what_a_profile_has_another_program_say(self, run, s3, bucket, tmp_path):
        name = bucket({"a.json": "1"})
        keys = {"Version": 1, "AccessKeyId": "AKIAOTHER", "SecretAccessKey": KEYS[1]}
        (tmp_path / "say.json").write_text(json.dumps(keys))
        config = f"[default]\ncredential_process = cat {tmp_path}/say.json\n"
        (tmp_path / "config").write_text(config)
        env = {
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        }
        outcome = run(f"s3://{name}/a.json", "--endpoint", s3.url, env=env)
        assert outcome.code == 0, outcome.stderr
        assert "AKIAOTHER/" in s3.seen[0].headers["Authorization"]
        process = "sh -c 'echo geheim >&2; exit 3'"
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {process}\n")
        outcome = run(f"s3://{name}/a.json", "--endpoint", s3.url, env=env)
        assert outcome.code == 2
        assert "the AWS profile 'default' gives no credentials" in outcome.stderr
        assert "geheim" not in outcome.stderr


class TestFaults:
    def test_that_pass_are_tried_again_and_counted(self, cloud, bucket, s3):
        name = bucket({f"{number}.json": f'{{"a": {number}}}' for number in range(20)})
        s3.fail(500, path=r"/3\.json")
        s3.fail(503, "SlowDown", times=2, path=r"/7\.json")
        s3.truncate(path=r"/11\.json")
        s3.reset(path=r"/13\.json")
        s3.slow(0.5, path=r"/15\.json")
        outcome = cloud(f"s3://{name}/", "-o", "json")
        assert outcome.code == 0
        assert report(outcome)["records"]["passed"] == 20
        assert report(outcome)["retries"] == 5

    def test_that_stay_are_failures(self, cloud, bucket, s3):
        name = bucket({"a.json": "1", "b.json": "[1, 2, 3]", "c.json": "3"})
        s3.fail(500, times=7, path=r"/a\.json")
        s3.truncate(times=7, path=r"/b\.json")
        outcome = cloud(f"s3://{name}/", "--retries", "6", "--retry-delay", "0.01", "-o", "json")
        told = "the store could not answer (500 InternalError) (tried 7 times)"
        short = "the response ended early (tried 7 times)"
        assert failures(outcome) == {
            f"s3://{name}/a.json": ("read_error", told),
            f"s3://{name}/b.json": ("read_error", short),
        }
        assert report(outcome)["files"]["succeeded"] == 1

    def test_of_silence_do_not_keep_a_run_from_being_stopped(self, bucket, s3):
        name = bucket({"a.json": "1"})
        s3.slow(PATIENCE, path="list-type")
        process = CommandProcess(
            ["run", f"s3://{name}/"],
            env=environment(**s3.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: s3.requests, running=process)
        process.send_signal(signal.SIGINT)
        # Without the signal, each attempt would wait a minute for the silent store.
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130

    def test_of_permission_are_not_tried_again(self, cloud, bucket, s3):
        name = bucket({"a.json": "1", "b.json": "1"})
        s3.fail(403, "AccessDenied", path=r"/a\.json")
        outcome = cloud(f"s3://{name}/", "-o", "json")
        message = "not permitted (the store says 403 AccessDenied)"
        assert failures(outcome) == {f"s3://{name}/a.json": ("permission", message)}
        assert len(s3.asked("GET", r"a\.json")) == 1


def lines(count: int, width: int = 10) -> bytes:
    name = b"x" * width
    return b"".join(b'{"id": %d, "name": "%s"}\n' % (number, name) for number in range(count))


HUGE = 170_000
"""Records of `huge`: more than a worker takes alone."""


@cache
def huge() -> dict[str, bytes]:
    text = lines(HUGE, 190)
    return {"l.jsonl": text, "a.json": b"[" + text.replace(b"\n", b",\n")[:-2] + b"]"}


class TestBig:
    """Objects that are larger than one response."""

    @pytest.mark.parametrize("key", ["l.jsonl", "a.json"])
    def test_are_worked_on_by_several_workers_as_files_are(self, cloud, bucket, s3, tmp_path, key):
        name = bucket({key: huge()[key]})
        (tmp_path / key).write_bytes(huge()[key])
        # Two workers read at once, each with one range at first. The main process may have read
        # as far ahead as it may, so no larger number is certain to be reached.
        s3.hold(2, "GET", skip=10)
        for source, to in ((f"s3://{name}/{key}", "cloud.jsonl"), (key, "file.jsonl")):
            outcome = cloud(source, "--workers", "2", "--to", to, "-o", "json")
            assert outcome.code == 0, outcome.stderr
            assert report(outcome)["records"]["written"] == HUGE
        assert (tmp_path / "cloud.jsonl").read_bytes() == (tmp_path / "file.jsonl").read_bytes()
        ranges = [one.headers["Range"] for one in s3.asked("GET", key) if "Range" in one.headers]
        assert len(ranges) > 30
        assert s3.most_at_once >= 2

    def test_tell_the_places_of_what_is_bad(self, cloud, bucket):
        name = bucket({"l.jsonl": huge()["l.jsonl"].replace(b'{"id": 99777,', b'{"id" 99777,')})
        outcome = cloud(f"s3://{name}/l.jsonl", "--workers", "2", "-o", "json")
        (failure,) = report(outcome)["failures"]
        assert (failure["record"], failure["line"]) == (99778, 99778)
        assert report(outcome)["records"]["passed"] == HUGE - 1

    def test_that_change_fail_as_files_do(self, cloud, bucket, s3):
        text = huge()["l.jsonl"]
        name = bucket({"l.jsonl": text})
        s3.before(lambda: s3.put(name, "l.jsonl", text + b"{}\n"), path="jsonl", skip=9)
        outcome = cloud(f"s3://{name}/l.jsonl", "--workers", "2", "-o", "json")
        ((_, (kind, message)),) = failures(outcome).items()
        assert kind == "read_error"
        assert message.startswith("was cut short, or replaced, while it was read")

    def test_that_are_compressed_come_in_ranges(self, cloud, bucket, s3):
        text = b"".join(b'{"id": "%s"}\n' % os.urandom(40).hex().encode() for _ in range(60_000))
        packed = gzip.compress(text, 1)
        assert len(packed) > 2_000_000
        name = bucket({"x.jsonl.gz": packed, "y.json.gz": gzip.compress(b'{"a": 1}')})
        s3.truncate(path=r"x\.jsonl\.gz")
        s3.fail(500, path=r"x\.jsonl\.gz")
        outcome = cloud(f"s3://{name}/", "-o", "json")
        assert outcome.code == 0, outcome.stdout
        assert report(outcome)["records"]["passed"] == 60_001
        assert report(outcome)["files"]["bytes"] == len(packed) + len(gzip.compress(b'{"a": 1}'))
        assert report(outcome)["retries"] == 2

    def test_are_refused_by_their_size_unread(self, cloud, bucket, s3):
        name = bucket({"a.json": "[" + "1," * 1000 + "1]", "b.json": "1"})
        outcome = cloud(f"s3://{name}/", "--max-file-size", "1K", "-o", "json")
        message = "2,003 bytes; the limit is 1,024"
        assert failures(outcome) == {f"s3://{name}/a.json": ("too_large", message)}
        assert not s3.asked("GET", r"a\.json")

    def test_are_read_by_async_functions_too(self, cloud, bucket, s3, tmp_path):
        small = {f"{number:02}.json": f"[{number}, 2]" for number in range(30)}
        name = bucket(small | {"b.jsonl": lines(3_000, 300), "c.json": "{"})
        (tmp_path / "f.py").write_text("async def f(record):\n    return record\n")
        s3.hold(9, "GET", skip=1)
        outcome = cloud(f"s3://{name}/", "--call", "f.py:f", "--to", "out.jsonl", "-o", "json")
        assert set(failures(outcome)) == {f"s3://{name}/c.json"}
        written = (tmp_path / "out.jsonl").read_text().splitlines()
        assert written[:6] == ["0", "2", "1", "2", "2", "2"]
        assert len(written) == 60 + 3_000
        assert s3.most_at_once > 8


class TestRemembering:
    @pytest.mark.parametrize(
        "target", [("--to", "out/"), ("--to", "sqlite:///t.db", "--table", "t")]
    )
    def test_skips_what_has_not_changed(self, cloud, bucket, s3, tmp_path, target):
        name = bucket({f"in/{n}.json": json.dumps({"n": n}) for n in range(5)})
        argument = (f"s3://{name}/in/", *target, *(("--key", "n") if "--table" in target else ()))
        assert cloud(*argument).code == 0
        s3.put(name, "in/3.json", '{"n": 33}')
        s3.put(name, "in/4.json", '{"n": 4}')  # unchanged, as its ETag shows
        s3.forget()
        outcome = cloud(*argument, "--resume", "-o", "json")
        assert report(outcome)["files"]["skipped"] == 4
        assert report(outcome)["files"]["succeeded"] == 1
        assert len(s3.asked("GET", r"\.json$")) == 1
        assert not s3.asked("HEAD")
        if "--table" in target:
            with closing(sqlite3.connect(tmp_path / "t.db")) as database:
                rows = database.execute("SELECT n FROM t ORDER BY n").fetchall()
            assert [n for (n,) in rows] == [0, 1, 2, 3, 4, 33]
        else:
            assert (tmp_path / f"out/{name}/in/3.json").read_text() == '{"n":33}\n'

    def test_of_a_list_asks_for_what_it_does_not_know(self, cloud, bucket, tmp_path):
        name = bucket({f"{n}.json": "1" for n in range(40)})
        urls = [f"s3://{name}/{n}.json" for n in range(40)]
        wrong = "s3://u:geheim@b/k"
        (tmp_path / "list").write_text("\n".join([*urls, f"s3://{name}/no.json", wrong]))
        argument = ("--files-from", "list", "--to", "o.jsonl", "-o", "json")
        assert report(cloud(*argument))["files"]["succeeded"] == 40
        outcome = cloud(*argument, "--resume")
        assert report(outcome)["files"]["skipped"] == 40
        found = failures(outcome)
        assert found[f"s3://{name}/no.json"] == ("not_found", "no such object")
        assert "a bucket URL cannot contain credentials" in found["s3://b/k"][1]
        assert "geheim" not in outcome.stdout + outcome.stderr

    def test_takes_up_a_big_one_where_it_was(self, cloud, bucket, s3, tmp_path):
        name = bucket({"l.jsonl": huge()["l.jsonl"]})
        to = ("--to", "sqlite:///t.db", "--table", "t", "--key", "id")
        argument = (f"s3://{name}/l.jsonl", "--workers", "1", *to, "-o", "json")
        end = len(huge()["l.jsonl"]) - 1
        s3.fail(403, "AccessDenied", times=99, path="l.jsonl", ranges=f"-{end}$")
        outcome = cloud(*argument)
        assert "after" in report(outcome)["failures"][0]["message"]
        assert 0 < report(outcome)["records"]["written"] < HUGE
        s3.forget()
        outcome = cloud(*argument, "--resume")
        assert outcome.code == 0, outcome.stdout
        assert 0 < report(outcome)["records"]["written"] < HUGE
        with closing(sqlite3.connect(tmp_path / "t.db")) as database:
            ((count,),) = database.execute("SELECT count(*) FROM t")
        assert count == HUGE

    def test_names_below_a_root(self, cloud, bucket, tmp_path):
        name = bucket({"in/a.json": "1", "in/sub/b.json": "2"})
        outcome = cloud(f"s3://{name}/in/", "--to", "out/", "--root", f"s3://{name}/in")
        assert outcome.code == 0
        assert (tmp_path / "out/sub/b.json").read_text() == "2\n"
        outcome = cloud(f"s3://{name}/in/", "--to", "out/", "--root", f"s3://{name}/on")
        assert outcome.code == 2

    def test_keeps_the_outputs_of_stores_and_files_apart(self, cloud, bucket, files):
        name = bucket({"in/a.json": "1"})
        files({f"{name}/in/a.json": "2"})
        outcome = cloud(f"s3://{name}/in/", name, "--to", "out/")
        assert outcome.code == 2
        assert "would be written to the same places below out/" in outcome.stderr
        assert cloud(f"s3://{name}/in/", "other", "--to", "out/").code == 1

    def test_holds_no_secret(self, cloud, bucket, tmp_path):
        name = bucket({"a.json": "1", "b.json": "{"})
        letters = ("--dead-letter", "bad.jsonl", "--report", "r.json", "--report", "r.xml")
        outcome = cloud(f"s3://{name}/", "--to", "sqlite:///t.db", "--table", "t", *letters, "-v")
        assert outcome.code == 1
        written = b"".join(one.read_bytes() for one in tmp_path.iterdir() if one.is_file())
        assert KEYS[1].encode() not in written + outcome.stderr.encode() + outcome.stdout.encode()
        assert f"s3://{name}/b.json".encode() in (tmp_path / "bad.jsonl").read_bytes()

    def test_of_failed_objects_that_are_run_again(self, cloud, bucket, s3):
        name = bucket({"a.json": "{", "b.json": "1"})
        assert cloud(f"s3://{name}/", "--dead-letter", "bad.jsonl").code == 1
        s3.put(name, "a.json", '{"a": 1}')
        outcome = cloud("--from-dead-letter", "bad.jsonl", "--to", "o.jsonl", "-o", "json")
        assert report(outcome)["records"]["written"] == 1


class Web(BaseHTTPRequestHandler):
    """Serves texts: /plain supports no ranges, /chunked reports no length."""

    protocol_version = "HTTP/1.1"
    texts: ClassVar[dict[str, bytes]] = {}
    redirects: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[tuple[str, str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(
            (self.command, self.path, {k.title(): v for k, v in self.headers.items()})
        )
        if (target := self.redirects.get(path)) is not None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        text = self.texts.get(path)
        if text is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        if asked and not path.startswith(("/plain", "/chunked")):
            start, stop = asked.removeprefix("bytes=").split("-")
            split = text[int(start) : int(stop) + 1]
            self.send_response(206)
            end = int(start) + len(split) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(text)}")
        else:
            split = text
            self.send_response(200)
        self.send_header("ETag", '"one"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            split = b"%x\r\n%s\r\n0\r\n\r\n" % (len(split), split)
        else:
            self.send_header("Content-Length", str(len(split)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(split)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web():
    """A function that serves texts by path, and returns the URL of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def serve(texts: Mapping[str, bytes], redirects: Mapping[str, str] | None = None) -> str:
        Web.texts, Web.redirects = dict(texts), dict(redirects or {})
        Web.asked.clear()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


class TestWeb:
    def test_gives_single_objects(self, run, web):
        texts = {"/a.json": b"[1, 2]", "/d%20e//x.jsonl": b"1\n2\n3\n", "/plain/b.json": b"1"}
        url = web(texts)
        query = "?token=geheim&v=1"
        outcome = run(*(f"{url}{path}{query}" for path in texts), f"{url}/no.json", "-o", "json")
        assert outcome.json["records"]["passed"] == 6
        assert failures(outcome) == {f"{url}/no.json": ("not_found", "no such object")}
        assert "geheim" not in outcome.stdout + outcome.stderr

    @pytest.mark.parametrize("path", ["/big.jsonl", "/plain/big.jsonl"])
    def test_gives_big_ones(self, run, web, path):
        url = web({path: lines(100_000)})
        outcome = run(url + path, "-o", "json")
        assert outcome.json["records"]["passed"] == 100_000
        assert outcome.json["files"]["bytes"] == len(lines(100_000))

    def test_must_tell_the_length(self, run, web):
        url = web({"/chunked/a.json": b"[1, 2]"})
        outcome = run(f"{url}/chunked/a.json", "-o", "json")
        ((_, told),) = failures(outcome).items()
        assert told == ("read_error", "the server does not report its length")

    def test_redirects_within_the_origin_are_followed(self, run, web):
        url = web({"/new/a.json": b"[1, 2]"}, {"/old": "new/a.json", "/older": "/old?v=1"})
        outcome = run(url.replace("//", "//me:geheim@") + "/older", "-o", "json")
        assert outcome.json["records"]["passed"] == 2
        basic = "Basic " + base64.b64encode(b"me:geheim").decode()
        assert {headers["Authorization"] for _, _, headers in Web.asked} == {basic}
        assert "geheim" not in outcome.stdout + outcome.stderr

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("http://localhost:{port}/a.json?s=1", "redirects to another origin, {other}"),
            ("//localhost:{port}/a.json", "redirects to another origin, {other}"),
            ("http://169.254.169.254/latest/", "another origin, http://169.254.169.254 ("),
            ("https://127.0.0.1:{port}/a.json", "another origin, https://127.0.0.1:{port} ("),
            ("ftp://127.0.0.1/a.json", "redirects to ftp:, which is neither http nor https"),
            ("http://[::1:8/", "redirects to a URL that is not valid"),
            ("/loop", "redirected more than 10 times"),
        ],
    )
    def test_redirects_to_other_origins_are_failures(self, run, web, target, message):
        url = web({"/a.json": b"[1, 2]", "/b.json": b"3"})
        names = {"port": url.rpartition(":")[2], "other": url.replace("127.0.0.1", "localhost")}
        Web.redirects["/loop"] = target.format(**names)
        outcome = run(f"{url}/loop", f"{url}/b.json", "-o", "json")
        ((file, (kind, told)),) = failures(outcome).items()
        assert (file, kind) == (f"{url}/loop", "read_error")
        assert message.format(**names) in told
        assert "s=1" not in told
        assert outcome.json["records"]["passed"] == 1
        assert {path for _, path, _ in Web.asked} == {"/loop", "/b.json"}

    @pytest.mark.parametrize("path", ["/a.json", "/plain/a.json"])
    def test_redirects_to_allowed_origins_send_no_secrets(self, run, web, path):
        url = web({path: lines(50_000) if path == "/a.json" else b"1"})
        other = url.replace("127.0.0.1", "localhost")
        Web.redirects["/home"] = other.replace("//", "//you:theirs@") + path
        address = url.replace("//", "//me:geheim@") + "/home?token=abc"
        options = ("--format", "jsonl", "-o", "json")
        outcome = run(address, "--allow-origins", f"https://h,{other}", *options)
        assert outcome.json["records"]["passed"] == (50_000 if path == "/a.json" else 1)
        assert outcome.code == 0
        theirs = [headers for _, asked, headers in Web.asked if asked == path]
        assert theirs
        for headers in theirs:
            assert not {"Authorization", "Referer", "Cookie"} & set(headers)
            assert headers["Host"] == other.partition("//")[2]


class TestOtherStores:
    """The requests to GCS and Azure. No server of theirs is available here."""

    def test_of_google_list_and_give_as_s3_does(self, run, s3, bucket):
        name = bucket({})
        s3.client.put_bucket_acl(Bucket=name, ACL="public-read")
        for key in ("in/a.json", "in/sub/b c.json", "in/d.txt"):
            s3.client.put_object(Bucket=name, Key=key, Body=b"1", ACL="public-read")
        options = ("--endpoint", s3.url, "--anonymous", "-o", "jsonl")
        outcome = run(f"gs://{name}/in/", *options)
        assert names(outcome) == [f"gs://{name}/in/a.json", f"gs://{name}/in/sub/b c.json"]
        assert outcome.code == 0

    def test_of_azure_give_objects(self, run, web):
        url = web({"/box/in/a.json": b"[1, 2]"})
        env = {"AZURE_STORAGE_ACCOUNT_NAME": "account"}
        outcome = run("az://box/in/a.json", "--endpoint", url, "--anonymous", "-o", "json", env=env)
        assert outcome.json["records"]["passed"] == 2
        outcome = run("az://box/in/a.json", "--endpoint", url)
        assert outcome.code == 2
        assert "AZURE_STORAGE_ACCOUNT_NAME" in outcome.stderr


class TestPipelines:
    def test_have_objects_as_sources(self, etl, s3, bucket, tmp_path):
        name = bucket({"in/a.json": '[{"id": 1}, {"id": 2}]', "in/b.jsonl": '{"id": 3}\n'})
        (tmp_path / "p.toml").write_text(f"""
            name = "objects"
            [[source]]
            type = "files"
            paths = ["s3://{name}/in/"]
            endpoint = "{s3.url}"
            [sink]
            to = "sqlite:///t.db"
            table = "t"
            key = ["id"]
        """)
        os.environ.update(s3.environment)
        try:
            first, second = etl("p.toml"), etl("p.toml")
        finally:
            for variable in s3.environment:
                del os.environ[variable]
        assert first.returncode == 0, first.stderr
        assert "2 skipped" in second.stdout
        with closing(sqlite3.connect(tmp_path / "t.db")) as database:
            rows = database.execute("SELECT id FROM t ORDER BY id").fetchall()
        assert rows == [(1,), (2,), (3,)]


@pytest.mark.parametrize("key", ["../b.json", "x/../../c.json", "/d.json", "../../deep/e.json"])
def test_no_key_leads_out_of_a_mirrored_folder(cloud, bucket, tmp_path, key):
    name = f"s3://{bucket({'in/a.json': '1', f'in/{key}': '1'})}/in"
    work = tmp_path / "work"
    work.mkdir()
    outcome = cloud(f"{name}/", "--to", "out/", "--jq", ".", "--root", name, cwd=work)
    assert outcome.code in {1, 2}
    assert "keys that cannot be requested" in outcome.stdout + outcome.stderr
    assert [*tmp_path.iterdir()] == [work]
