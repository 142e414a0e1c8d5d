"""`asyncbatch etl` on the shapes of public APIs: bodies, cursors, links, templates, formats."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from textwrap import dedent
from typing import Any

import pytest

from asyncbatch import Pipeline
from asyncbatch.http import CursorPagination, HttpSettings, ParentRequests
from tests.commands import PATIENCE, ROOT, CommandProcess, environment, run_command_text
from tests.servers.api import ApiServer, body, redirect, status, truncate, value
from tests.servers.shapes import COUNT, SHAPES, Shape, routes_of


@pytest.fixture
def etl(tmp_path, files):
    """Run `asyncbatch etl` on the text of a pipeline file, in its own folder."""

    def _etl(text: str, *arguments: str, **env: str) -> Any:
        files({"p.toml": text})
        return run_command_text("etl", "p.toml", *arguments, cwd=tmp_path, env=env)

    return _etl


def source(text: str, origin: str | None) -> str:
    """Return the table of a source without retries; `text` is formatted with an origin."""
    text = dedent(text) if origin is None else dedent(text).format(origin=origin)
    return f'[[source]]\ntype = "http"\nretries = 0\n{text}'


def to_lines(*sources: str) -> str:
    """Return a pipeline file whose sink is a file of JSON Lines."""
    return f'name = "n"\n{"".join(sources)}\n[sink]\nto = "out.jsonl"\n'


def to_table(shape: Shape, origin: str, sink: str = "") -> str:
    """Return a pipeline file whose sink is a table of ids."""
    fields = f'[[transform]]\ntype = "fields"\nfields = {{ id = "{shape.id_path}" }}'
    table = f'[sink]\nto = "sqlite:///out.db"\ntable = "t"\n{sink}\n'
    return f'name = "n"\n{source(shape.source, origin)}\n{fields}\n{table}'


def lines(folder: Any) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def ids(folder: Any) -> list[str]:
    """Return the ids in the table, in the order in which they were added."""
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return [row[0] for row in database.execute("SELECT id FROM t ORDER BY rowid")]


def failure_of(outcome: Any) -> str:
    (failure,) = json.loads(outcome.stdout)["failures"]
    return str(failure["message"])


@pytest.mark.parametrize("name", SHAPES)
def test_an_api_is_read_to_its_end(etl, tmp_path, name):
    shape = SHAPES[name]
    is_incremental = "incremental" in shape.source  # which needs a table
    with ApiServer(routes=routes_of(shape)) as api:
        lines_file = to_lines(source(shape.source, api.origin))
        text = to_table(shape, api.origin) if is_incremental else lines_file
        outcome = etl(text, "-o", "json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "notes" not in json.loads(outcome.stdout)
    if is_incremental:
        assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]
    else:
        assert lines(tmp_path) == [shape.record(number) for number in range(COUNT)]


RESUMABLE = [
    "notion", "github graphql", "stripe", "elasticsearch search_after", "zendesk", "confluence",
    "azure cosmos", "csv",
]  # fmt: skip


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_failed_url_continues_after_its_last_page(etl, tmp_path, name):
    shape = SHAPES[name]
    with ApiServer(routes=routes_of(shape)) as api:
        text = to_table(shape, api.origin)
        for behaviour in (None, None, status(500)):  # as usual for two pages
            api.misbehave(behaviour or _usual)
        assert etl(text).returncode == 1
        assert len(ids(tmp_path)) == 6
        api.seen.clear()
        assert etl(text).returncode == 0
        assert api.requests in (2, 3)  # `search_after` ends with a page without records
    assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]


async def _usual(_: Any) -> None:
    return None


def test_a_scroll_is_requested_once_and_begins_anew(etl, tmp_path):
    shape = SHAPES["elasticsearch scroll"]
    with ApiServer(routes=routes_of(shape)) as api:
        text = to_table(shape, api.origin, 'key = ["id"]').replace("retries = 0", "retries = 3")
        for behaviour in (_usual, _usual, truncate()):
            api.misbehave(behaviour)
        outcome = etl(text, "-o", "json")
        assert (outcome.returncode, api.requests) == (1, 3)
        assert "tried" not in failure_of(outcome)
        assert len(ids(tmp_path)) == 6
        assert etl(text).returncode == 0
        assert api.seen[3].path == "/index/_search"
    assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]


PARTIAL = {
    "data": {"repository": {"issues": {"nodes": [{"id": "x"}, None]}}},
    "errors": [{"message": "not yours", "path": ["repository", "issues", 1]}],
}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (PARTIAL, "not yours (at repository.issues.1)"),
        ({"data": None, "errors": [{"message": "no such field"}]}, "no such field"),
        ({"errors": [{"message": str(number)} for number in range(5)]}, "0; 1; 2; and 2 more"),
    ],
)
def test_an_error_of_graphql_is_a_failure(etl, tmp_path, answer, message):
    shape = SHAPES["github graphql"]
    with ApiServer(routes=routes_of(shape)) as api:
        text = to_table(shape, api.origin)
        api.misbehave(_usual)
        api.misbehave(value(answer))
        outcome = etl(text, "-o", "json")
        assert outcome.returncode == 1
        assert f"the answer has errors of GraphQL: {message}" in failure_of(outcome)
        assert json.loads(outcome.stdout)["failures"][0]["file"] == api.url("/graphql")
        assert etl(text).returncode == 0
    assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]


def test_a_rate_limit_of_graphql_is_waited_for(etl, tmp_path):
    shape = SHAPES["github graphql"]
    limit = {"errors": [{"type": "RATE_LIMITED", "message": "too much"}]}
    code = {"errors": [{"message": "too much", "extensions": {"code": "THROTTLED"}}]}
    with ApiServer(routes=routes_of(shape)) as api:
        text = to_table(shape, api.origin).replace(
            "retries = 0", "retries = 2\nretry_delay = 0.001"
        )
        api.misbehave(value(limit, Retry_After="0"))
        api.misbehave(value(code))
        outcome = etl(text, "-o", "json")
    assert outcome.returncode == 0, outcome.stdout
    assert json.loads(outcome.stdout)["retries"] == 2
    assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]


def changes(asked: Any, records: Any) -> Any:
    """Answer a search for records from a time on."""
    since = asked.body["filter"]["updated_at"]["after"]
    return {"items": [record for record in records if record["updated_at"] >= since]}


CHANGES = Shape(
    lambda number: {"id": f"id-{number}", "updated_at": f"2026-01-0{number + 1}T10:00:00Z"},
    ["/search/{of}"],
    changes,
    """
    urls = ["{origin}/search/{{{{ since | unix }}}}?day={{{{ today }}}}&half={{{{ since + 12h }}}}"]
    records = "/items"
    body = {{ filter = {{ updated_at = {{ after = "{{{{ since }}}}", unit = "s" }} }} }}
    incremental = {{ field = "updated_at", initial = "2026-01-05T09:00:00+01:00" }}
    """,
)


def test_templates_have_the_largest_value_of_the_last_run(etl, tmp_path):
    table = '[sink]\nto = "sqlite:///out.db"\ntable = "t"\nkey = ["id"]\n'
    with ApiServer(routes=routes_of(CHANGES, 7)) as api:
        text = f'name = "n"\n{source(CHANGES.source, api.origin)}{table}'
        days = [datetime.now(UTC).date().isoformat()]
        for _ in range(2):
            assert etl(text).returncode == 0
        days.append(datetime.now(UTC).date().isoformat())
        first, second = api.seen
    assert first.path == f"/search/{int(datetime(2026, 1, 5, 8, tzinfo=UTC).timestamp())}"
    assert first.query["half"] == "2026-01-05T21:00:00+01:00"
    assert first.query["day"] in days
    assert json.loads(first.body)["filter"]["updated_at"] == {
        "after": "2026-01-05T09:00:00+01:00", "unit": "s",
    }  # fmt: skip
    assert json.loads(second.body)["filter"]["updated_at"]["after"] == "2026-01-07T10:00:00Z"
    assert ids(tmp_path) == [f"id-{number}" for number in (4, 5, 6)]


def test_a_template_that_does_not_fit_is_a_failure(etl, tmp_path):
    with ApiServer(routes=routes_of(CHANGES, 7)) as api:
        text = source(CHANGES.source, api.origin).replace("2026-01-05T09:00:00+01:00", "soon")
        table = '[sink]\nto = "sqlite:///out.db"\ntable = "t"\n'
        outcome = etl(f'name = "n"\n{text}{table}', "-o", "json")
        assert (outcome.returncode, api.requests) == (1, 0)
    assert "{{ since | unix }}" in failure_of(outcome)
    assert "needs a time, not 'soon'" in failure_of(outcome)


def test_a_parameter_of_new_records_may_be_in_the_body(etl, tmp_path):
    with ApiServer(routes=routes_of(CHANGES, 7)) as api:
        text = f"""
        urls = ["{api.url("/search/x")}"]
        records = "/items"
        body = {{{{}}}}
        [source.incremental]
        field = "updated_at"
        param = "/filter/updated_at/after"
        param_in = "body"
        initial = "2026-01-06"
        """
        table = '[sink]\nto = "sqlite:///out.db"\ntable = "t"\n'
        assert etl(f'name = "n"\n{source(text, api.origin)}{table}').returncode == 0
    assert ids(tmp_path) == ["id-5", "id-6"]


def test_records_by_key_may_be_single_values(etl, tmp_path):
    found = {"USD": 1.10, "GBP": 1e400, "": None, 'a"b': {}, "key": {"name": "key", "n": [1]}}
    text = json.dumps({"rates": found}).replace("Infinity", "123456789012345678901234567890.5")
    keys = 'records = "/rates"\nkey_field = "name"\n'
    with ApiServer() as api:
        api.misbehave(body(text.encode()))
        urls = f'urls = ["{api.url("/echo")}"]\n'
        outcome = etl(to_lines(source(urls + keys, api.origin)))
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [
        '{"name":"USD","value":1.1}',
        '{"name":"GBP","value":123456789012345678901234567890.5}',
        '{"name":"","value":null}',
        '{"name":"a\\"b"}',
        '{"name": "key", "n": [1]}',
    ]


BY_KEY = 'key_field = "id"\nrecords = "/users"'


OTHER_FORMS: list[Any] = [
    (BY_KEY, "application/json", '{"users": {"a": {"id": 1}, "b": {}}}',
     ([{"id": "b"}], "has another value than its key 'a' in 'id'")),
    (BY_KEY, "application/json", '{"users": {"a": {}, "b": {"a": [1, {}]}, "\\u0061": 1}}',
     ([{"id": "b", "a": [1, {}]}], "is one of several values of the key 'a'")),
    (BY_KEY, "application/json", '{"users": []}', ([], None)),
    (BY_KEY, "application/json", '{"users": [1]}', (None, "expected an object of records")),
    (BY_KEY, "application/json", '{"error": "no"}', (None, "reports an error")),
    ("", "text/csv", "a,b\n1,2\n3\n\n4,5\n",
     ([{"a": "1", "b": "2"}, {"a": "4", "b": "5"}], "has 1 cell, and the header 2")),
    ("", "text/csv", "a,a\n1,2\n", (None, "two columns have the name 'a'")),
    ("", "text/csv", 'a\n"x', (None, "is not CSV")),
    ("", "text/csv", "", ([], None)),
    ('format = "csv"', "application/octet-stream", "a\n\u00fc\n", ([{"a": "\u00fc"}], None)),
    ('format = "csv"', "application/json", '{"error": 1}', (None, "expected CSV")),
    ('format = "csv"', "text/csv; charset=x", "a\n1\n", (None, "the character set 'x'")),
]  # fmt: skip


def test_bad_records_of_other_forms_are_named(etl, tmp_path):
    with ApiServer() as api:
        sources: list[str] = []
        expected: list[Any] = []
        messages: dict[str, str] = {}
        for number, (settings, kind, answer, (good, message)) in enumerate(OTHER_FORMS):
            path = f"/form/{number}"
            api.misbehave(body(answer.encode(), kind), path=path)
            text = f'urls = ["{api.url(path)}"]\n{settings}'
            sources.append(source(text, None))
            expected += good or []
            messages |= {} if message is None else {api.url(path): message}
        outcome = etl(to_lines(*(f"{one}\n" for one in sources)), "-o", "json")
    failures = {one["file"]: one["message"] for one in json.loads(outcome.stdout)["failures"]}
    assert failures.keys() == messages.keys()
    for file, message in messages.items():
        assert message in failures[file]
    assert sorted(lines(tmp_path), key=str) == sorted(expected, key=str)


def test_each_value_of_a_repeated_key_is_counted(etl, tmp_path):
    answer = ' {"rates": { "b" : {"x":1} ,"a":{"x":[1,{}]}, "\\u0061" : 1e40 ,"a": "}" }}'
    with ApiServer() as api:
        api.misbehave(body(answer.encode()))
        keys = 'key_field = "id"\nrecords = "/rates"'
        text = source(f'urls = ["{api.url("/echo")}"]\n{keys}', None)
        dead = '[dead_letter]\nto = "dead.jsonl"\n'
        outcome = etl(to_lines(f"{text}\n{dead}"), "-o", "json")
    report = json.loads(outcome.stdout)
    counts = {name: report["records"][name] for name in ("read", "passed", "rejected")}
    assert counts == {"read": 4, "passed": 1, "rejected": 3}
    assert lines(tmp_path) == [{"id": "b", "x": 1}]
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 3


def test_the_advice_about_a_format_names_the_key_of_the_source(etl, files):
    files({"in/a.json": '{"a": 1}\n{"a": 2}\n', "in/b.json": '{\n"a": 1}\n{"a": 2}\n'})
    with ApiServer() as api:
        api.misbehave(body(b'{"a": 1}\n{"a": 2}\n'), path="/echo")
        api.misbehave(body(b'{\n"a": 1}\n{"a": 2}\n'), path="/page")
        http = source(f'urls = ["{api.url("/echo")}", "{api.url("/page")}"]', None)
        folder = '[[source]]\ntype = "files"\npaths = ["in"]\n'
        report = json.loads(etl(to_lines(f"{http}\n", folder), "-o", "json").stdout)
    told = {one["file"].rpartition("/")[2]: one["message"] for one in report["failures"]}
    assert "--input-format" not in str(report)
    assert '(is each line a value? then format = "jsonl")' in told["a.json"]
    assert '(is each line a value? then format = "jsonl")' in told["echo"]
    assert 'then format = "concat")' in told["b.json"]
    assert "format" not in told["page"]  # that of pages is never concat


def test_the_body_stays_where_it_belongs(etl, tmp_path):
    shape = SHAPES["notion"]
    hidden = "s3cr3t-of-the-body"
    with ApiServer(routes=routes_of(shape)) as api, ApiServer(routes=routes_of(shape)) as other:
        path = shape.paths[0]
        text = to_lines(source(shape.source, api.origin)).replace(
            "page_size = 3", f'page_size = 3, api_token = "{hidden}"'
        ).replace("retries = 0", f'retries = 0\nallow_origins = ["{other.origin}"]')  # fmt: skip
        answers = [
            (redirect(f"{path}?x"), "HTTP 302 redirects without the body of the request"),
            (redirect(other.url(path), 307), "must not receive the body"),
            (status(400, f"bad token {hidden}"), "HTTP 400"),
        ]
        for answer, message in answers:
            api.misbehave(answer)
            outcome = etl(text, "-o", "json")
            assert outcome.returncode == 1
            assert message in failure_of(outcome)
            assert hidden not in outcome.stdout + outcome.stderr
        assert other.requests == 0
        api.misbehave(redirect(f"{path}?x", 308))
        assert etl(text).returncode == 0
        assert {(seen.method, b"page_size" in seen.body) for seen in api.seen} == {("POST", True)}
    assert lines(tmp_path) == [shape.record(number) for number in range(COUNT)]


MISTAKES: list[Any] = [
    ('pagination = { type = "cursor" }', ["pagination: next is missing: name one of"]),
    ('pagination = { type = "cursor", next = "/a", last_record = "/b" }',
     ["pagination: next and last_record exclude each other"]),
    ('pagination = { type = "next_url", next_header = "a b" }',
     ["pagination.next_header: is not the name of a header"]),
    ('pagination = { type = "next_url", next = "/a", base = "x" }',
     ["pagination.base: must be a URL"]),
    ('pagination = { type = "cursor", next = "/a", param_in = "body" }',
     ["pagination.param_in: is body, and there is none: write body = {}"]),
    ('body = { a = 1 }\npagination = { type = "page", param = "/a/b", param_in = "body" }',
     ["pagination.param: the body has a single value on the way to /a/b"]),
    ('body = { a = [1] }\npagination = { type = "page", param = "/a/7", param_in = "body" }',
     ["pagination.param: the array in the body has no element 7"]),
    ('headers.X-C = "1"\npagination = { type = "page", param = "x-c", param_in = "header" }',
     ["pagination.param: is also in headers"]),
    ('format = "csv"\nrecords = "/a"\nkey_field = "b"',
     ["records: is a pointer into JSON", "key_field: is only for JSON"]),
    ('format = "csv"\npagination = { type = "cursor", next = "/a", end = "/b" }',
     ["pagination.next: is a pointer into JSON", "pagination.end: is a pointer into JSON"]),
    ('body = { a = [{ b = "{{ since }}" }] }',
     ["body: has the template {{ since }}, which needs"]),
    ('body = { a = "{{ sinse }}" }', ["body: has the template {{ sinse }}: write"]),
    ('incremental = { field = "a" }', ["incremental.param: is missing"]),
    ('incremental = { field = "a", param = "p" }\npagination = { type = "page", param = "p" }',
     ["incremental.param: pagination also has the parameter 'p'"]),
    ('parent = { urls = ["https://a.example/"], pagination = { type = "cursor" } }',
     ["parent.pagination: next is missing"]),
    ('parent = { urls = ["https://a.example/"] }', ["urls[0]: has no field of its parent"]),
]  # fmt: skip


def test_settings_that_do_not_go_together(etl):
    texts = [
        source(f'urls = ["https://a.example/{number}"]\n{settings}\n', None)
        for number, (settings, _) in enumerate(MISTAKES)
    ]
    sink = 'sqlite:///x.db"\ntable = "t'
    outcome = etl(to_lines(*texts).replace("out.jsonl", sink), "--check")
    assert outcome.returncode == 2
    found = outcome.stderr.splitlines()[1:]
    expected = [
        f"source[{number}].{mistake}"
        for number, (_, mistakes) in enumerate(MISTAKES)
        for mistake in mistakes
    ]
    assert len(found) == len(expected), outcome.stderr
    for line, mistake in zip(found, expected, strict=True):
        assert mistake in line


def orders(asked: Any, records: Any) -> Any:
    """Answer with orders in pages of three, or with the lines of one order in pages of two."""
    if asked.path == "/orders":
        at = int(asked.query["page"]) * 3
        return {"orders": records[at : at + 3], "pages": -(-len(records) // 3)}
    number = int(asked.path.split("/")[2].removeprefix("a b-"))
    at = int(asked.query.get("at", 0))
    found = [{"line": line, "of": number} for line in range(number)]
    following = at + 2 if at + 2 < number else None
    return {"lines": found[at : at + 2], "next": following}


ORDERS = Shape(
    lambda number: {"id": f"a b-{number}", "customer": {"name": f"ada {number}"}, "n": 10**20},
    ["/orders", "/orders/{id}/lines"],
    orders,
    """
    urls = ["{origin}/orders/{{id}}/lines"]
    records = "/lines"
    pagination = {{ type = "cursor", next = "/next", param = "at" }}
    concurrency = 2
    [source.parent]
    urls = ["{origin}/orders"]
    records = "/orders"
    pagination = {{ type = "page", start = 0, pages = "/pages" }}
    fields = {{ order_id = "id", customer = "customer.name", n = "n" }}
    """,
)
LINES = [
    {"order_id": f"a b-{of}", "customer": f"ada {of}", "n": 10**20, "line": line, "of": of}
    for of in range(8)
    for line in range(of)
]


def in_order(records: list[Any]) -> list[Any]:
    return sorted(records, key=lambda record: (record["of"], record["line"]))


def test_children_are_requested_for_each_record_of_a_parent(etl, tmp_path):
    with ApiServer(routes=routes_of(ORDERS, 8)) as api:
        outcome = etl(to_lines(source(ORDERS.source, api.origin)), "-o", "json")
        assert api.most_at_once <= 2
        assert {seen.target for seen in api.seen} >= {
            "/orders/a%20b-7/lines?at=6",
            "/orders?page=2",
        }
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert in_order(lines(tmp_path)) == LINES
    report = json.loads(outcome.stdout)
    assert report["files"]["total"] == 8
    assert report["sources"][0]["requests"] == 3 + 8 + sum((of - 1) // 2 for of in range(1, 8))


def test_children_that_fail_stop_no_others_and_continue(etl, tmp_path):
    table = '[sink]\nto = "sqlite:///out.db"\ntable = "t"\nkey = ["of", "line"]\n'
    with ApiServer(routes=routes_of(ORDERS, 8)) as api:
        text = f'name = "n"\n{source(ORDERS.source, api.origin)}{table}'
        api.misbehave(_usual, path="/orders/a b-7/lines")
        api.misbehave(status(500), path="/orders/a b-7/lines")
        api.misbehave(status(404), path="/orders/a b-3/lines")
        outcome = etl(text, "-o", "json")
        assert outcome.returncode == 1
        failures = json.loads(outcome.stdout)["failures"]
        assert sorted(failure["file"] for failure in failures) == [
            api.url("/orders/a%20b-3/lines"), api.url("/orders/a%20b-7/lines?at=2"),
        ]  # fmt: skip
        api.seen.clear()
        assert etl(text).returncode == 0
        targets = [seen.target for seen in api.seen if "b-7" in seen.target]
        assert targets == [f"/orders/a%20b-7/lines?at={at}" for at in (2, 4, 6)]
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        rows = database.execute("SELECT order_id, customer, line, of FROM t").fetchall()
    names = ("order_id", "customer", "line", "of")
    assert sorted(rows) == sorted(tuple(one[name] for name in names) for one in LINES)


def test_parents_that_lead_nowhere_are_named(etl, tmp_path):
    parents: list[Any] = [
        {"id": "."}, {"id": None}, {}, 7, {"id": True}, {"id": 1}, {"id": 1}, {"id": "a/../b?c"},
    ]  # fmt: skip
    with ApiServer([{"line": 1, "order_id": 2}, 3, {"line": 4}]) as api:
        parent = (
            f'[source.parent]\nurls = ["{api.url("/echo")}"]\nfields = {{{{ order_id = "id" }}}}'
        )
        api.misbehave(value(parents))
        text = f'urls = ["{api.url("/lines?at={{id}}")}"]\n{parent}\n'
        outcome = etl(to_lines(source(text, api.origin)), "-o", "json")
        targets = [seen.target for seen in api.seen[1:]]
    assert outcome.returncode == 1
    messages = [failure["message"] for failure in json.loads(outcome.stdout)["failures"]]
    assert [message for message in messages if "parent" in message]
    assert sorted(targets) == ["/lines?at=1", "/lines?at=a%2F..%2Fb%3Fc"]
    assert sorted(lines(tmp_path), key=str) == [
        {"order_id": "a/../b?c", "line": 4}, {"order_id": 1, "line": 4},
    ]  # fmt: skip


def test_a_page_of_parents_that_fails_is_a_failure(etl, tmp_path):
    with ApiServer(routes=routes_of(ORDERS, 8)) as api:
        for behaviour in (_usual, status(500)):
            api.misbehave(behaviour, path="/orders")
        outcome = etl(to_lines(source(ORDERS.source, api.origin)), "-o", "json")
        (failure,) = json.loads(outcome.stdout)["failures"]
        assert (outcome.returncode, failure["file"]) == (1, api.url("/orders?page=1"))
        assert failure["message"].startswith("parents: HTTP 500")
    assert in_order(lines(tmp_path)) == [one for one in LINES if one["of"] in (0, 1, 2)]


def test_killed_runs_lose_and_double_no_child(files, tmp_path):
    table = '[sink]\nto = "sqlite:///out.db"\ntable = "t"\nkey = ["of", "line"]\n'
    with ApiServer(routes=routes_of(ORDERS, 8)) as api:
        files({"p.toml": f'name = "n"\n{source(ORDERS.source, api.origin)}{table}'})
        for answers in (5, 9, None):
            running = CommandProcess(
                ["etl", "p.toml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd=tmp_path, env=environment(), start_new_session=True,
            )  # fmt: skip
            with running:
                if answers is not None and api.answer(answers, running):
                    running.send_signal(signal.SIGKILL)
                    continue
                api.answers = None
                assert running.wait(timeout=PATIENCE) == 0
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        rows = database.execute("SELECT of, line FROM t").fetchall()
    assert sorted(rows) == sorted((one["of"], one["line"]) for one in LINES)


async def test_a_program_sends_bodies_and_reads_children(tmp_path):
    notion, output = SHAPES["notion"], tmp_path / "out.jsonl"
    with ApiServer(routes=routes_of(notion) | routes_of(ORDERS, 8)) as api:
        bodies = HttpSettings(
            (api.url(notion.paths[0]),), records="/results", body={"page_size": 4},
            pagination=CursorPagination("/next_cursor", "start_cursor", param_in="body"),
        )  # fmt: skip
        parent = ParentRequests(
            (api.url("/orders?page=1"),), records="/orders", fields={"order": "id"}
        )
        children = HttpSettings(
            (api.url("/orders/{id}/lines"),), records="/lines", parent=parent,
            pagination=CursorPagination("/next", "at"),
        )  # fmt: skip
        report = await Pipeline([bodies, children], sink=output).run()
    assert report.tally.files == 1 + 3
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one for one in found if "of" not in one] == [
        notion.record(number) for number in range(COUNT)
    ]
    assert in_order([one for one in found if "of" in one]) == [
        {"order": one["order_id"], "line": one["line"], "of": one["of"]}
        for one in LINES
        if one["of"] in (3, 4, 5)
    ]


def test_the_examples_of_the_documentation_are_valid(etl):
    text = (ROOT / "docs" / "apis.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    examples = [block.removeprefix('[[source]]\ntype = "http"\n') for block in blocks]
    for number, pagination in enumerate(re.findall(r"`(\{ type = .*?\})`", text)):
        urls = f'urls = ["https://a.example/{number}"]'
        examples.append(f"{urls}\nbody = {{}}\npagination = {pagination}")
    assert len(examples) > 12
    sources = "".join(source(example, None) + "\n" for example in examples)
    table = '[sink]\nto = "sqlite:///x.db"\ntable = "t"\n'
    outcome = etl(f'name = "n"\n{sources}{table}', "--check")
    assert (outcome.returncode, outcome.stderr) == (0, "")
