"""Pipeline files: valid contents, and every mistake with its key path."""

from __future__ import annotations

import json
import re
import string
import subprocess
import tomllib
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import asyncbatch
from asyncbatch.config.pipeline_file.build import (
    dedupe_key,
    files_inputs,
    files_settings,
    http_settings,
    sink_target,
    transform_specs,
)
from asyncbatch.config.pipeline_file.check import pipeline_schema
from asyncbatch.config.pipeline_file.files import PipelineFile
from asyncbatch.config.pipeline_file.load import load_pipeline_file, parse_pipeline_file
from asyncbatch.core.secrets import Secret, secret_url
from asyncbatch.errors import PipelineFileError, UsageError
from asyncbatch.sinks.target import KNOWN
from asyncbatch.sources.http.access.credentials import BasicAuth
from asyncbatch.transforms.schema_file import SchemaSource
from asyncbatch.transforms.spec import FieldRule, FieldsSpec, JqSpec, RequireSpec
from tests.commands import COMMAND, PATIENCE, ROOT, environment, run_command_text
from tests.conftest import Outcome
from tests.encoding import encode_secret

FULL = """
name = "people"

[[source]]
type = "http"
urls = ["https://api.example.com/users", "https://api2.example.com/users"]
headers = { Accept = "application/json" }
auth = { type = "bearer", token = "${API_TOKEN}" }
records = "/items"
pagination = { type = "cursor", next = "/next_cursor", param = "cursor" }
timeout = 10
retries = 5
rate_limit = "20/s"
concurrency = 8
incremental = { field = "updated_at", param = "since", initial = "2020-01-01T00:00:00Z" }

[[source]]
type = "files"
paths = ["exports/"]

[[transform]]
type = "fields"
[transform.fields]
id = "id"
name = { from = "profile.name", apply = ["strip", "title"], default = "" }
email = { from = "email", apply = ["lower"] }
signup = { from = "created", apply = ["datetime"] }
processed_at = { now = true }

[[transform]]
type = "require"
fields = ["id", "email"]
on_missing = "reject"

[sink]
to = "postgresql://loader@localhost/warehouse"
table = "people"
key = ["id"]
mode = "upsert"
batch_size = 1000
pool = { min = 1, max = 4 }

[dead_letter]
to = "people.rejected.jsonl"
"""
SMALL: dict[str, Any] = {
    "name": "n",
    "source": [{"type": "files", "paths": ["in/"]}],
    "sink": {"to": "out.jsonl"},
}
HTTP = {"type": "http", "urls": ["https://api.example.com/"]}


def parsed(document, *overrides, **variables) -> Any:
    return parse_pipeline_file(document, "p.toml", overrides, variables)


def mistakes(document, *overrides, **variables) -> list[str]:
    with pytest.raises(PipelineFileError) as caught:
        parsed(document, *overrides, **variables)
    return list(caught.value.mistakes)


def with_source(**more):
    return {**SMALL, "source": [{**HTTP, **more}]}


def with_files(**more):
    return {**SMALL, "source": [{"type": "files", "paths": ["in/"], **more}]}


def with_sink(**more):
    return {**SMALL, "sink": more}


def with_transforms(*tables):
    return {**SMALL, "transform": list(tables)}


@pytest.fixture
def etl(tmp_path):
    """Run `asyncbatch etl` in a folder of its own."""

    def _etl(*arguments, **env):
        finished = run_command_text("etl", *arguments, cwd=tmp_path, env=env)
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return _etl


def test_a_full_file():
    pipeline = parsed(tomllib.loads(FULL), API_TOKEN="t0ken")
    http, files = pipeline.sources
    assert http.auth.token.reveal() == "t0ken"
    assert http.headers["Accept"].reveal() == "application/json"
    assert (http.timeout, http.rate_limit, http.pagination.next) == (10.0, "20/s", "/next_cursor")
    assert [url.reveal() for url in http.urls][1] == "https://api2.example.com/users"
    assert files.paths == ("exports/",)
    assert pipeline.sink.to.reveal() == "postgresql://loader@localhost/warehouse"
    assert (pipeline.sink.pool.max, pipeline.dead_letter.to) == (4, "people.rejected.jsonl")
    assert pipeline.source_names() == ["http", "files"]
    assert transform_specs(pipeline.transforms) == (
        FieldsSpec(
            (
                ("id", FieldRule("id")),
                ("name", FieldRule("profile.name", ("strip", "title"), "")),
                ("email", FieldRule("email", ("lower",))),
                ("signup", FieldRule("created", ("datetime",))),
                ("processed_at", FieldRule(now=True)),
            )
        ),
        RequireSpec(("id", "email")),
    )


def test_every_mistake_at_once():
    found = mistakes(
        tomllib.loads("""
nam = "x"
[[source]]
type = "http"
urls = ["https://api.example.com", "ftp://x"]
auth = { type = "bearer", token = "${API_TOKEN}" }
records = "items"
pagination = { type = "curser", next = "/next" }
timeout = "10 parsecs"
rate_limit = "20/fortnight"
retries = -1
concurency = 8
max_body = "much"
[[source]]
type = "files"
paths = ["a"]
unit = "file"
records = "/x"
[[transform]]
type = "fields"
[transform.fields]
name = { from = "a..b", apply = ["strp"] }
y = { now = true, value = 3 }
[[transform]]
type = "dedupe"
key = ["id"]
[[transform]]
type = "require"
fields = "id"
[sink]
to = "sqlite:///x.db"
mode = "upsert"
pool = { min = 5, max = 4 }
""")
    )
    assert {text.partition(": ")[0] for text in found} == {
        "nam", "name", "source[0].urls[1]", "source[0].auth.token", "source[0].records",
        "source[0].pagination.type", "source[0].timeout", "source[0].rate_limit",
        "source[0].retries", "source[0].concurency", "source[0].max_body", "source[1].records",
        "transform[0].fields.name.from", "transform[0].fields.name.apply[0]",
        "transform[0].fields.y", "transform[1].type", "transform[2].fields", "sink.mode",
        "sink.table", "sink.pool", "sink.pool.min",
    }  # fmt: skip
    assert len(found) == 21


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({**SMALL, "sorce": []}, "sorce: unknown key (did you mean 'source'?)"),
        ({**SMALL, "x y": 1}, ('"x y": unknown key; the known keys are aggregate, dead_letter, '
                              "name, sink, source, transform")),
        ({**SMALL, "source": {"type": "files"}}, ("source: must be an array of tables: write "
                                                 "[[source]]")),
        ({**SMALL, "source": []}, "source: is empty"),
        ({**SMALL, "sink": [{}]}, "sink: must be a table: write [sink]"),
        ({**SMALL, "source": [{}]}, "source[0].type: is missing: one of http, files"),
        ({**SMALL, "name": 3}, "name: must be a string, not 3"),
        ({**SMALL, "name": ""}, "name: is empty"),
        (with_source(concurrency=True), "source[0].concurrency: must be a whole number, not true"),
        (with_source(concurrency=0), "source[0].concurrency: is 0; it cannot be less than 1"),
        (with_source(timeout=0), "source[0].timeout: is 0; it must be more than 0"),
        (
            with_source(headers={"Host": "x"}),
            "source[0].headers.Host: cannot be set: it is derived from the request",
        ),
        (
            with_source(auth={"type": "header", "name": "a b", "value": "x"}),
            "source[0].auth.name: is not the name of a header",
        ),
        (
            with_source(pagination={"type": "page", "size": 50}),
            "source[0].pagination.size: needs size_param: the parameter that asks for this size",
        ),
        (with_source(timeout=float("inf")), "source[0].timeout: cannot be inf"),
        (with_source(urls=["https:///x"]), "source[0].urls[0]: is a URL without a host"),
        (with_source(urls=["https://x/y z"]), ("source[0].urls[0]: is a URL with white space: "
                                              "write %20 instead")),
        (with_source(urls="https://x"), 'source[0].urls: must be an array: write ["…"]'),
        (with_source(urls=["http://x/#a", "http://x/#b"]),
         "source[0].urls[1]: is listed twice: its records would be doubled"),
        (with_source(urls=["http://x", "http://x"]), ("source[0].urls[1]: is listed twice: its "
                                                     "records would be doubled")),
        ({**SMALL, "source": [{**HTTP, "timeout": seconds} for seconds in (1, 2)]},
         "source[1]: is listed twice: its records would be doubled"),
        ({**SMALL, "source": [{"type": "files", "paths": [path]} for path in ("in/", "./in")]},
         "source[1]: is listed twice: its records would be doubled"),
        (with_source(allow_origins=["https://x/y"]), ("source[0].allow_origins[0]: is more than "
         "an origin: write https://api.example.com, without a path")),
        (with_source(records="/a~2"), ('source[0].records: "/a~2" is not a JSON Pointer: write '
                                      '"/items" or ""')),
        (with_source(headers={"authorization": "x"}, auth={"type": "bearer", "token": "x"}),
         "source[0].headers.authorization: auth also sends this header: choose one"),
        (with_source(headers={"X Y": "1"}), 'source[0].headers."X Y": is not the name of a header'),
        (
            with_source(headers={"X": "a\n"}),
            "source[0].headers.X: has a line end or another unprintable character",
        ),
        (
            with_source(urls=["https://u@x"], auth={"type": "bearer", "token": "x"}),
            "source[0].urls[0]: has a user, and auth has credentials: choose one",
        ),
        (
            with_source(urls=["https://u@x"], auth={"type": "query", "name": "k", "value": "x"}),
            "source[0].urls[0]: has a user, and auth has credentials: choose one",
        ),
        (with_source(auth={"type": "query", "name": "page", "value": "x"},
                     pagination={"type": "page"}),
         "source[0].auth.name: pagination also has the parameter 'page'"),
        (with_source(pagination={"type": "page", "size_param": "n"}),
         "source[0].pagination.size_param: needs size: the number of records in a page"),
        (with_files(paths=[]), ("source[0].paths: name a folder, a file or a glob, or give "
                               "files_from")),
        (with_files(paths=["-"], files_from="-"), ("source[0].paths: standard input ('-') can be "
                                                  "read only once")),
        (with_files(shard="3/2"), ("source[0].shard: '3/2' is not a shard: write I/N, 1/3 to 3/3 "
                                  "for three")),
        (with_files(hidden="yes"), 'source[0].hidden: must be true or false, not "yes"'),
        (with_files(max_file_size="1 potato"), ('source[0].max_file_size: "1 potato" is not a '
                                               "size: write bytes, or 64K, 10MB, 1.5GiB")),
        (with_files(null=True), "source[0].null: is only for files_from"),
        (with_sink(to="out.xyz"), f"sink.to: is not a known target: write {KNOWN}"),
        (with_sink(to="o.csv", key=["id"]), ("sink.key: is only for databases, but the sink is a "
                                              "CSV file")),
        (with_sink(to="sqlite:///x", table="t", pool={}), ("sink.pool: is only for PostgreSQL, but "
                                                          "the sink is SQLite")),
        (with_transforms({"type": "fields", "fields": {}}), "transform[0].fields: is empty"),
        (with_transforms({"type": "fields", "fields": {"a": {"value": [1, float("nan")]}}}),
         "transform[0].fields.a.value[1]: cannot be nan: JSON cannot represent it"),
        (with_transforms({"type": "fields", "fields": {"a": {"now": True, "default": 1}}}),
         "transform[0].fields.a.default: needs from"),
        (with_transforms({"type": "fields", "fields": {"mail": "m"}},
                         {"type": "require", "fields": ["email"]}),
         ("transform[1].fields[0]: the earlier fields transform makes no field 'email' (did you "
         "mean 'mail'?)")),
    ],
)  # fmt: skip
def test_a_mistake(document, told):
    assert mistakes(document) == [told]


def test_a_key_that_no_field_is_made_for():
    document = {
        **with_transforms({"type": "fields", "fields": {"ident": "id"}}),
        "sink": {"to": "sqlite:///x.db", "table": "t", "key": ["idnt"]},
    }
    assert mistakes(document) == [
        "sink.key[0]: no transform makes a field 'idnt' (did you mean 'ident'?)"
    ]
    document["transform"].append({"type": "jq", "expr": ". + {idnt: 1}"})
    parsed(document)


def test_numbers_as_text():
    http = parsed(with_source(timeout="500ms", max_body="64K", retry_delay="2m")).sources[0]
    assert (http.timeout, http.max_body, http.retry_delay) == (0.5, 65536, 120.0)
    initial = datetime(2020, 1, 1, tzinfo=UTC)
    table = {"field": "/at", "param": "since", "initial": initial}
    sink = {"to": "sqlite:///x.db", "table": "t"}
    (source,) = parsed({**with_source(incremental=table), "sink": sink}).sources
    assert source.incremental.initial == "2020-01-01T00:00:00Z"


def test_urls_of_one_source_have_one_user():
    urls = ["https://a:b@example.org/x", "https://example.org/y"]
    assert mistakes(with_source(urls=urls)) == [
        "source[0].urls: have different users, or only some have a user: use auth, or two sources"
    ]
    urls[1] = "https://a:b@example.org/y"
    http = http_settings(parsed(with_source(urls=urls)).sources[0])
    assert http.urls == ("https://example.org/x", "https://example.org/y")
    assert http.auth == BasicAuth("a", Secret("b"))


class TestVariables:
    def test_from_the_environment(self):
        document = {**SMALL, "name": "${A}-${B:-b}-$${C}-$D-${E:-}"}
        assert parsed(document, A="a").name == "a-b-${C}-$D-"
        assert parsed(document, A="${B}", B="").name == "${B}-b-${C}-$D-"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("${A}", ("name: the environment variable A is not set: set it, or write "
                      "${A:-default}")),
            ("${A} ${B}", ("name: the environment variable A is not set: set it, or write "
                      "${A:-default}")),
            ("${", ("name: ${ does not begin a variable: write ${NAME}, ${NAME:-default}, or $${ "
                   "for a plain ${")),
            ("${1}", ("name: ${ does not begin a variable: write ${NAME}, ${NAME:-default}, or "
                     "$${ for a plain ${")),
        ],
    )  # fmt: skip
    def test_missing(self, text, told):
        assert told in mistakes({**SMALL, "name": text})[0]

    def test_only_in_strings(self):
        document = with_source(concurrency="${N}")
        assert mistakes(document, N="8") == [
            'source[0].concurrency: must be a whole number, not "${N}"'
        ]

    def test_a_value_from_the_environment_is_not_shown(self):
        document = with_source(rate_limit="${LIMIT}", pagination={"type": "${KIND}"})
        for text in mistakes(document, LIMIT="hunter2", KIND="hunter2"):
            assert "hunter2" not in text
            assert "${" in text


class TestOverrides:
    def test_values_as_toml_or_text(self):
        pipeline = parsed(
            with_source(), "name=a b", "source.0.concurrency=3", "source[0].timeout = 1.5",
            'source.0.urls=["https://other.example.com"]', "sink.to=x.csv",
            'sink.columns=["a"]', "source.0.auth.type=bearer", "source.0.auth.token=abc",
            "dead_letter.to=d.jsonl",
        )  # fmt: skip
        http = pipeline.sources[0]
        assert (pipeline.name, http.concurrency, http.timeout) == ("a b", 3, 1.5)
        assert http.urls[0].reveal() == "https://other.example.com"
        assert (pipeline.sink.to.reveal(), pipeline.sink.columns) == ("x.csv", ("a",))
        assert http.auth.token.reveal() == "abc"
        assert pipeline.dead_letter.to == "d.jsonl"

    def test_a_value_cannot_add_keys(self):
        assert parsed(SMALL, "name=1\nevil = 2").name == "1\nevil = 2"

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("bogus", ("--set bogus: is not KEY=VALUE; write --set sink.table=people, or --set "
                      "source.0.timeout=5")),
            ("a b=hunter2", ("--set a b=: is not KEY=VALUE; write --set sink.table=people, or "
                            "--set source.0.timeout=5")),
            ("source.1.timeout=5", ("source.1: --set cannot find this key: source is an "
                                   "array of 1")),
            ("name.x=5", "name.x: --set cannot find this key: name is not a table"),
            ("sink.too=5", "sink.too: unknown key (did you mean 'to'?)"),
        ],
    )  # fmt: skip
    def test_mistakes(self, override, told):
        assert mistakes(SMALL, override) == [told]


class TestSecrets:
    def test_are_never_shown(self):
        pipeline = parsed(
            {
                "name": "n",
                "source": [
                    {
                        **HTTP,
                        "urls": ["https://me:hunter2@api.example.com/x?api_key=hunter2&page=1"],
                    },
                    {
                        **HTTP,
                        "headers": {"X-Key": "hunter2"},
                        "auth": {"type": "basic", "username": "me", "password": "hunter2"},
                    },
                ],
                "sink": {"to": "postgresql://me:hunter2@db/warehouse", "table": "t"},
            }
        )
        shown = "https://me:***@api.example.com/x?api_key=***&page=1"
        encoded = msgspec.json.encode(pipeline, enc_hook=encode_secret).decode()
        for text in (repr(pipeline), str(pipeline), encoded):
            assert "hunter2" not in text
            assert shown in text
            assert "postgresql://me:***@db/warehouse" in text
        assert pipeline.sources[1].auth.password.reveal() == "hunter2"

    def test_are_not_shown_in_mistakes(self):
        document = {
            **with_source(
                urls=["https://me:hunter2@/x", "gopher://me:hunter2@x"],
                headers={"X-Key": ["hunter2"]},
                auth={"type": "basic", "username": "me", "pasword": "hunter2"},
                rate_limit={"token": "hunter2"},
            ),
            "sink": {"to": "mysql://me:hunter2@db/warehouse"},
        }
        found = mistakes(document)
        assert len(found) == 7
        assert "hunter2" not in "".join(found)

    def test_cannot_be_empty(self):
        document = with_source(auth={"type": "bearer", "token": "${T}"})
        assert mistakes(document, T="") == [
            "source[0].auth.token: is empty after variables are replaced: ${T}"
        ]

    def test_a_secret(self):
        one, same, other = Secret("a"), Secret("a"), Secret("b")
        assert (f"{one}", f"{one!r}", "%s" % one) == ("***", "***", "***")  # noqa: UP031 - each way to show it
        assert one == same != other
        assert len({one, same, other}) == 2
        with pytest.raises(TypeError):
            msgspec.json.encode(one)

    @given(st.text(string.ascii_letters + string.digits + "!~_-.%:", min_size=8, max_size=12))
    def test_passwords_in_urls(self, password):
        shown = secret_url(f"https://me:{password}@api.example.com/x?token={password}").redacted
        assert shown == "https://me:***@api.example.com/x?token=***"

    def test_urls_without_secrets_are_shown_as_they_are(self):
        for url in ("sqlite:///x.db", "sqlite:////var/x.db", "https://x/y?page=1#z", "http://u@h"):
            assert secret_url(url).redacted == url


def test_only():
    document = {
        **SMALL,
        "source": [
            HTTP,
            {**HTTP, "name": "http-2", "max_pages": 2},
            {**HTTP, "max_pages": 3},
            with_files()["source"][0],
        ],
    }
    pipeline = parsed(document)
    assert pipeline.source_names() == ["http", "http-2", "http-3", "files"]
    assert pipeline.only(["files", "http-3"]) == (pipeline.sources[2], pipeline.sources[3])
    with pytest.raises(
        UsageError, match=r"--only htp: no source has this name; the sources are .* mean 'http'"
    ):
        pipeline.only(["htp"])
    document["source"][3]["name"] = "http-2"
    assert mistakes(document) == ["source[3].name: 'http-2' is also the name of another source"]


def test_transforms_are_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text('{"type": "objekt"}')
    document = with_transforms(
        {"type": "jq", "expr": ".a |"},
        {"type": "call", "function": "nowhere.py:f"},
        {"type": "schema", "file": "s.json"},
        {"type": "jq", "expr": ".", "lossy": True},
        {"type": "dedupe", "key": ["/id"]},
    )
    document["nam"] = "x"
    paths = [text.partition(": ")[0] for text in mistakes(document)]
    assert paths == ["transform[0].expr", "transform[1].function", "transform[2].file", "nam"]


def test_transforms_as_workers_are_told_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text('{"type": "object"}')
    tables = parsed(
        with_transforms(
            {"type": "schema", "file": "s.json", "check_formats": True},
            {"type": "jq", "expr": ".", "lossy": True},
            {"type": "dedupe", "key": ["/id"]},
        )
    ).transforms
    schema, jq = transform_specs(tables)
    assert isinstance(schema, SchemaSource)
    assert (schema.path, schema.check_formats) == ("s.json", True)
    assert jq == JqSpec(".", lossy=True)
    assert dedupe_key(tables) == ("/id",)
    assert dedupe_key(tables[:1]) is None


async def test_tables_are_what_run_is_told(files, monkeypatch):
    folder = files({"in/a.txt": '{"rows": [{"a": 1}, {"a": ""}]}', "in/b.json": "{}"})
    monkeypatch.chdir(folder)
    pipeline = parsed(
        {
            **with_transforms({"type": "require", "fields": ["a"], "on_missing": "drop"}),
            "source": with_files(pattern=["*.txt"], records="/rows", max_file_size="1K")["source"],
            "sink": {"to": "sqlite:///o.db", "table": "t", "key": ["a"]},
        }
    )
    (source,), target = pipeline.sources, sink_target(pipeline.sink)
    assert (target.mode, target.key, target.table) == ("upsert", ("a",), "t")
    settings = msgspec.structs.replace(
        files_settings(source), transforms=transform_specs(pipeline.transforms), target=target
    )
    run = asyncbatch.Run(
        asyncbatch.Job((asyncbatch.FileSource(files_inputs(source), settings),), workers=0)
    )
    async with aclosing(run.parts()) as parts:
        assert [part async for part in parts]
    tally = run.report.tally
    assert (tally.read, tally.dropped, tally.written) == (2, 1, 1)


class TestFiles:
    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b'name = "x"\n[[source]\n', ("p.toml:2:9: is not TOML: expected ']]' at the end of an "
                                         "array declaration")),
            (b"name = ", "p.toml:1:8: is not TOML: invalid value"),
            (b'name = "\xff"', "p.toml:1:9: is not UTF-8"),
            (b"name = " + b"9" * 5000, "p.toml: has an integer of more than 4,300 digits"),
            (b"a = " + b"[" * 100_000, "p.toml: is nested too deeply"),
        ],
    )  # fmt: skip
    def test_that_are_no_toml(self, tmp_path, monkeypatch, data, told):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "p.toml").write_bytes(data)
        with pytest.raises(PipelineFileError) as caught:
            load_pipeline_file("p.toml")
        assert str(caught.value) == told

    @pytest.mark.parametrize("depth", [200, 400, 600, 800, 1000])
    def test_that_are_deep(self, tmp_path, depth):
        (tmp_path / "p.toml").write_text(f"a = {'[' * depth}{']' * depth}")
        with pytest.raises(PipelineFileError, match=r"unknown key|nested too deeply"):
            load_pipeline_file(str(tmp_path / "p.toml"))

    def test_that_are_missing(self):
        with pytest.raises(
            PipelineFileError, match=r"^no/such\.toml: No such file or directory; `async"
        ):
            load_pipeline_file("no/such.toml")


class TestSchema:
    def test_takes_what_the_checker_takes(self):
        validator = jsonschema_rs.validator_for(pipeline_schema())
        document = tomllib.loads(FULL)
        assert validator.is_valid(document)
        assert validator.is_valid(with_source(timeout="5s", max_body="1MB"))
        assert not validator.is_valid({**document, "nam": "x"})
        assert not validator.is_valid(with_source(pagination={"type": "curser"}))

    def test_describes_every_key(self):
        schema = pipeline_schema()
        for name, table in schema["$defs"].items():
            for key, what in table["properties"].items():
                assert key == "type" or "description" in what or "$ref" in what, (name, key)
                assert what.get("type") != "null", (name, key)

    def test_is_what_the_documentation_tells(self):
        told = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "etl.md").read_text()))
        keys = {key for table in pipeline_schema()["$defs"].values() for key in table["properties"]}
        examples = {"from", "default", "now", "value"}
        tables = {"source", "transform", "sink", "dead_letter", "aggregate"}
        assert keys - tables - examples <= told


class TestCommand:
    def test_a_valid_file(self, etl, tmp_path):
        (tmp_path / "p.toml").write_text(FULL)
        found = etl("p.toml", "--check", API_TOKEN="hunter2")
        assert found == (
            0,
            (
                "p.toml is valid: 2 sources (http, files), 2 transforms, into people of "
                "postgresql://loader@localhost/warehouse\n"
            ),
            "",
        )
        assert etl("p.toml", "--check", "-q", API_TOKEN="x").stdout == ""

    def test_mistakes(self, etl, tmp_path):
        (tmp_path / "p.toml").write_text(FULL)
        found = etl("p.toml", "--check", "--set", "sink.mode=upsrt")
        assert (found.code, found.stdout) == (2, "")
        assert found.stderr == (
            "Error: p.toml has 2 mistakes:\n"
            "  source[0].auth.token: the environment variable API_TOKEN is not set: set it, or "
            "write ${API_TOKEN:-default}\n"
            '  sink.mode: must be one of append, mirror, replace, upsert, not "upsrt" (did you '
            "mean 'upsert'?)\n"
        )

    def test_no_source_of_that_name(self, etl, tmp_path):
        (tmp_path / "p.toml").write_text(FULL)
        found = etl("p.toml", "--check", "--only", "htp", API_TOKEN="x")
        assert found.code == 2
        assert (
            "no source has this name; the sources are http, files (did you mean 'http'?)"
            in found.stderr
        )

    def test_control_characters_do_not_reach_the_terminal(self, etl, tmp_path):
        (tmp_path / "p.toml").write_text('"a\\u001b[2J" = 1\n')
        found = etl("p.toml", "--check")
        assert found.code == 2
        assert "\x1b" not in found.stderr

    def test_the_schema(self, etl):
        found = etl("--print-schema")
        assert found.code == 0
        assert found.json == json.loads(json.dumps(pipeline_schema()))

    @pytest.mark.parametrize("arguments", [("--print-schema",), ("p.toml", "--check")])
    def test_a_full_disk(self, tmp_path, arguments):
        (tmp_path / "p.toml").write_text(FULL)
        with open("/dev/full", "w") as full:
            finished = subprocess.run(
                [*COMMAND, "etl", *arguments], check=False, stdout=full, stderr=subprocess.PIPE,
                text=True, cwd=tmp_path, env=environment(API_TOKEN="x"), timeout=PATIENCE,
            )  # fmt: skip
        assert finished.returncode == 1
        assert finished.stderr == (
            "Error: cannot write to standard output: No space left on device\n"
        )

    def test_no_file(self, etl):
        found = etl()
        assert found.code == 2
        assert "asyncbatch init" in found.stderr


def keys_exist(path, document) -> bool:
    """Return whether the key path of a mistake, or its table, is in the document."""
    for token in path[:-1]:
        try:
            document = document[token]
        except (KeyError, IndexError, TypeError):
            return False
    return True


SCALARS = (
    st.none().map(lambda _: "")
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from(["http", "files", "fields", "page", "${X}", "https://x", "/a", "1/2", "a.b"])
)
KEYS = st.sampled_from(
    ["name", "source", "transform", "sink", "type", "to", "fields", "from", "urls", "key", "auth"]
) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS, lambda deep: st.lists(deep, max_size=3) | st.dictionaries(KEYS, deep, max_size=4)
)


def part_of_a_good_one(document):
    return st.dictionaries(st.sampled_from(sorted(document)), VALUES, max_size=3).map(
        lambda changes: {**document, **changes}
    )


@given(
    st.dictionaries(KEYS, VALUES, max_size=5)
    | part_of_a_good_one(tomllib.loads(FULL))
    | part_of_a_good_one(tomllib.loads(FULL)["source"][0]).map(lambda s: {**SMALL, "source": [s]})
    | part_of_a_good_one(tomllib.loads(FULL)["sink"]).map(lambda s: {**SMALL, "sink": s})
    | st.dictionaries(KEYS, VALUES, max_size=3).map(
        lambda fields: with_transforms({"type": "fields", "fields": fields})
    )
)
@example(with_source(timeout=10**400, concurrency=-(10**400)))
@example({"source": [{"type": "http", "urls": [{}]}], "sink": {"to": ["x"]}})
def test_anything_is_a_file_or_has_mistakes_in_places_that_exist(document):
    from asyncbatch.config.pipeline_file.check import INVALID, check
    from asyncbatch.config.pipeline_file.mistakes import Mistake

    found: list[Mistake] = []
    result = check(document, PipelineFile, found)
    assert (result is INVALID) == bool(found)
    assert isinstance(result, PipelineFile) != bool(found)
    for mistake in found:
        assert keys_exist(mistake.path, document), mistake
        assert str(mistake)
