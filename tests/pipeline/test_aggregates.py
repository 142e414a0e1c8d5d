"""Aggregates over all records of a run (`--by`, `--agg`), against the SQL of DuckDB."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import math
import random
import sqlite3
import statistics
from contextlib import closing
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

import asyncbatch
from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.groups import grouped_target
from asyncbatch.sinks.target import Target
from asyncbatch.sources.inputs import Inputs
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.groups import GroupSettings
from tests.commands import run_command_text

AGGREGATES = "count,sum:amount,avg:amount,min:amount,max:amount,dev=stddev:amount,distinct:u.id"
SQL = """
    SELECT {keys}, count(*), sum(amount), avg(amount), min(amount), max(amount),
        stddev_samp(amount), count(DISTINCT u.id)
    FROM read_json([{files}], columns={{country: 'VARCHAR', kind: 'VARCHAR', amount: 'DOUBLE',
        u: 'STRUCT(id BIGINT)', n: 'BIGINT'}})
    GROUP BY ALL ORDER BY ALL
"""


def make_records(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return records whose amounts are exact as doubles, so that each order has the same sum."""
    choose = random.Random(seed)
    return [
        {
            "country": choose.choice(["DE", "FR", "Å", "no"]), "kind": choose.choice("ab"),
            "amount": choose.randrange(-800, 800) / 8, "u": {"id": choose.randrange(40)}, "n": n,
            "text": "x" * choose.randrange(30),
        }
        for n in range(count)
    ]  # fmt: skip


def lines(records) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


@pytest.fixture
def folder(tmp_path):
    """Write records as a JSON array, JSON Lines, compressed and not, and single documents."""
    records = make_records(3000)
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a.json").write_text(json.dumps(records[:1000]))
    (inputs / "b.jsonl").write_text(lines(records[1000:2000]))
    with gzip.open(inputs / "c.jsonl.gz", "wt") as stream:
        stream.write(lines(records[2000:2990]))
    for number, one in enumerate(records[2990:]):
        (inputs / f"d{number}.json").write_text(json.dumps(one))
    return inputs


def query(sql: str) -> list[tuple[Any, ...]]:
    return duckdb.execute(sql).fetchall()


def from_sql(inputs, keys: str) -> list[tuple[Any, ...]]:
    names = sorted(path for path in inputs.iterdir())
    files = ", ".join(f"'{name}'" for name in names)
    return query(SQL.format(keys=keys, files=files))


def same(rows, expected, *, keys: int) -> None:
    """Compare rows with those of SQL; the standard deviation and a mean may round otherwise."""
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        key, (count, total, mean, least, most, deviation, distinct) = row[:keys], row[keys:]
        assert (*key, count, total, least, most) == (
            *wanted[:keys], *wanted[keys : keys + 2], *wanted[keys + 3 : keys + 5]
        )  # fmt: skip
        assert mean == pytest.approx(wanted[keys + 2], rel=1e-12)
        assert deviation == pytest.approx(wanted[keys + 5], rel=1e-12)
        assert distinct == wanted[keys + 6]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_groups_equal_those_of_sql(run, folder, workers):
    for by in ("country", "country,kind"):
        ran = run("in", "--by", by, "--agg", AGGREGATES, "--to", "-", "-w", workers)
        assert ran.code == 0, ran.stderr
        rows = [tuple(json.loads(line).values()) for line in ran.stdout.splitlines()]
        same(rows, from_sql(folder, by), keys=by.count(",") + 1)
        assert f"written  {len(rows)} to -" in ran.stderr


def test_any_target_gets_the_rows(run, folder, tmp_path):
    expected = from_sql(folder, "country")
    options = ("--by", "country", "--agg", AGGREGATES)
    for name in ("out.jsonl", "out.jsonl.gz", "out.csv", "out.parquet"):
        assert run("in", *options, "--to", name).code == 0
    for address in ("sqlite:///out.db", "duckdb:///out.duckdb"):
        for _ in range(2):  # the second run replaces the table of the first
            ran = run("in", *options, "--to", address, "--table", "t", "--mode", "replace")
            assert ran.code == 0, ran.stderr
    plain = (tmp_path / "out.jsonl").read_text()
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).decode() == plain
    same([tuple(json.loads(line).values()) for line in plain.splitlines()], expected, keys=1)
    names = list(json.loads(plain.splitlines()[0]))
    assert names == ["country", "count", "sum_amount", "avg_amount", "min_amount", "max_amount",
                     "dev", "distinct_u.id"]  # fmt: skip
    with (tmp_path / "out.csv").open(newline="") as stream:
        head, *cells = csv.reader(stream)
    assert head == names
    same([(one[0], *map(float, one[1:])) for one in cells], expected, keys=1)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == names
    same([tuple(one.values()) for one in table.to_pylist()], expected, keys=1)
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        same(database.execute("SELECT * FROM t ORDER BY country").fetchall(), expected, keys=1)
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        same(connection.sql("SELECT * FROM t ORDER BY country").fetchall(), expected, keys=1)


def test_a_key_replaces_rows_and_append_adds_them(run, folder, tmp_path):
    to = ("--agg", "count", "--to", "sqlite:///out.db", "--table", "t")
    for _ in range(2):
        assert run("in", "--by", "country", *to, "--key", "country").code == 0
    for _ in range(2):
        assert run("in", *to[:-1], "all", "--mode", "append").code == 0
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert database.execute("SELECT count(*), sum(count) FROM t").fetchall() == [(4, 3000)]
        assert database.execute("SELECT count FROM 'all'").fetchall() == [(3000,), (3000,)]


@pytest.mark.parametrize("target", ["sqlite:///x.db", "duckdb:///x.duckdb"])
def test_groups_of_one_result_do_not_replace_each_other(run, tmp_path, target):
    """1 and "1" are two groups, and one key of a column of texts."""
    keys = ["1", 1, "true", True, "b"]
    data = "".join(json.dumps({"k": key, "v": n}) + "\n" for n, key in enumerate(keys))
    (tmp_path / "k.jsonl").write_text(data)
    to = ("--by", "k", "--agg", "sum:v", "--to", target, "--table", "t")
    for mode in ((), ("--mode", "append")):
        ran = run("k.jsonl", *to, "--key", "k", *mode)
        assert (ran.code, "the row of k=" in ran.stdout) == (1, True), ran.stdout
    ran = run("k.jsonl", "--by", "k,v", "--agg", "count", *to[4:], "--key", "v")
    assert ran.code == 0, ran.stderr
    (tmp_path / "k.jsonl").write_text('{"k": 1, "v": 2}\n{"k": "b", "v": 2}\n{"k": 2, "v": 3}\n')
    ran = run("k.jsonl", "--by", "k,v", "--agg", "count", *to[4:-1], "u", "--key", "v")
    assert (ran.code, "an earlier row of the result has the same v" in ran.stdout) == (1, True)
    assert run("k.jsonl", "--by", "k", "--agg", "count", *to[4:-1], "w", "--key", "k").code == 0


def test_the_table_and_the_objects_have_the_same_groups(run, folder):
    options = ("in", "--by", "kind", "--agg", "n=count,sum:n")
    expected = query(
        f"SELECT kind, count(*), sum(n) FROM read_json('{folder}/*') GROUP BY 1 ORDER BY 1"
    )
    shown = run(*options).stdout.splitlines()
    assert [line.split() for line in (shown[0], *shown[2:4])] == [
        ["kind", "n", "sum_n"],
        *([str(value) for value in row] for row in expected),
    ]
    assert "3,000 read: 3,000 passed" in "\n".join(shown)
    objects = [
        {"key": {"kind": kind}, "aggregates": {"n": count, "sum_n": total}}
        for kind, count, total in expected
    ]
    assert run(*options, "-o", "json").json["groups"] == objects
    events = run(*options, "-o", "jsonl").events
    assert events[-2:] == [{"event": "group", **one} for one in objects]
    quiet = run(*options, "-q")
    assert (quiet.stdout.splitlines(), quiet.stderr) == (shown[:4], "")


def test_without_by_there_is_one_row(run, files):
    files({"a.json": "[]", "b.jsonl": '{"x": 1}\n{"x": 2.5}\n'})
    for paths, result in (
        (["a.json"], {"count": 0, "sum_x": None, "avg_x": None, "p50_x": None}),
        (["a.json", "b.jsonl"], {"count": 2, "sum_x": 3.5, "avg_x": 1.75}),
    ):
        groups = run(*paths, "--agg", "count,sum:x,avg:x,p50:x", "-o", "json").json["groups"]
        assert len(groups) == 1
        assert groups[0]["key"] == {}
        assert result.items() <= groups[0]["aggregates"].items()
    ran = run("a.json", "--by", "x", "--to", "out.csv", "--agg", "sum:y")
    assert ran.code == 0
    assert (files({}) / "out.csv").read_text() == "x,sum_y\n"


def test_percentiles_are_within_their_error(run, folder):
    """DuckDB gives the exact value; the sketch promises one percent."""
    groups = run("in", "--by", "country", "--agg", "p50:n,p95:n,p99:n", "-w", "2", "-o", "json")
    for one in groups.json["groups"]:
        exact = duckdb.execute(
            f"SELECT quantile_disc(n, [0.5, 0.95, 0.99]) FROM read_json('{folder}/*') "
            "WHERE country = ?",
            [one["key"]["country"]],
        ).fetchall()
        found = [one["aggregates"][name] for name in ("p50_n", "p95_n", "p99_n")]
        assert found == pytest.approx(exact[0][0], rel=0.011)


def test_keys_are_in_order_and_differ_by_type(run, files):
    keys = ["b", 1, True, 1.0, "1", False, -2, 1.5, "B", 2**70, "é"]
    files({"a.jsonl": lines({"k": key} for key in keys * 3)})
    for workers in ("0", "2"):
        groups = run("a.jsonl", "--by", "k", "-o", "json", "-w", workers).json["groups"]
        assert [(one["key"]["k"], one["aggregates"]["count"]) for one in groups] == [
            (False, 3), (True, 3), (-2, 3), (1, 6), (1.5, 3), (2**70, 3),
            ("1", 3), ("B", 3), ("b", 3), ("é", 3),
        ]  # fmt: skip
        kinds = [type(one["key"]["k"]) for one in groups]
        assert kinds[:5] == [bool, bool, int, int, float]


@pytest.mark.parametrize("fast", [True, False])
def test_a_record_without_a_value_is_rejected(run, files, fast):
    """Only the record: those beside it count. Also if transforms come first."""
    bad = ['{"k": "a"}', '{"k": "a", "x": null}', '{"k": "a", "x": "1"}', '{"k": "a", "x": true}',
           '{"x": 1}', '{"k": null, "x": 1}', '{"k": ["a"], "x": 1}', '{"k": {}, "x": 1}', "[1]",
           "7", "not json"]  # fmt: skip
    good = ['{"k": "a", "x": 1}', '{"k": "a", "x": 2}', '{"k": "b", "x": -1}']
    files({"a.jsonl": "\n".join([*good, *bad, *good])})
    first = () if fast else ("--jq", ".")
    ran = run("a.jsonl", *first, "--by", "k", "--agg", "count,sum:x", "-o", "json",
              "--dead-letter", "bad.jsonl")  # fmt: skip
    assert ran.code == 1
    assert ran.json["groups"] == [
        {"key": {"k": "a"}, "aggregates": {"count": 4, "sum_x": 6}},
        {"key": {"k": "b"}, "aggregates": {"count": 2, "sum_x": -2}},
    ]
    assert ran.json["failure_kinds"] == {"invalid_json": 1, "missing_field": 4, "transform": 6}
    assert [one["line"] for one in ran.json["failures"]] == list(range(4, 15))
    letters = (files({}) / "bad.jsonl").read_text().splitlines()
    assert len(letters) == len(bad)
    (files({}) / "good.jsonl").write_text("\n".join(good))
    misspelt = run("good.jsonl", *first, "--by", "kk", "-o", "json").json
    assert misspelt["notes"] == [
        "no record has a value for the key field 'kk'; the nearest one is 'k'"
    ]


def test_a_failed_file_gives_none_of_its_records(run, files):
    """As with a table: only a split or streamed file, whose records count early, gives some."""
    good = lines(make_records(50))
    files({"a.jsonl": good, "b.json": json.dumps(make_records(50))[:-20]})
    with gzip.open(files({}) / "c.jsonl.gz", "wt") as stream:
        stream.write(good)
    whole = (files({}) / "c.jsonl.gz").read_bytes()
    (files({}) / "c.jsonl.gz").write_bytes(whole[:-30])
    ran = run(".", "--agg", "count", "-o", "json")
    assert (ran.code, ran.json["files"]["failed"]) == (1, 2)
    assert ran.json["groups"] == [{"key": {}, "aggregates": {"count": 50}}]
    assert ran.json["records"]["passed"] == 50


def test_transforms_come_first(run, folder):
    ran = run("in", "--jq", "select(.amount > 0) | {c: .country, parts: [.n, .n]} | .c as $c "
              "| .parts[] | {c: $c, n: .}", "--by", "c", "--agg", "count,sum:n", "--to", "-",
              "-w", "2")  # fmt: skip
    expected = query(
        f"SELECT country, 2 * count(*), 2 * sum(n) FROM read_json('{folder}/*') "
        "WHERE amount > 0 GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(json.loads(line).values()) for line in ran.stdout.splitlines()] == expected


@pytest.mark.parametrize("workers", ["0", "2"])
def test_only_the_first_of_duplicates_counts(run, folder, workers):
    ran = run("in", "--dedupe", "country,u.id", "--by", "kind", "--agg", "count,sum:n", "--to", "-",
              "-w", workers)  # fmt: skip
    expected = query(
        "SELECT kind, count(*), sum(n) FROM (SELECT DISTINCT ON (country, u.id) kind, n "
        f"FROM read_json('{folder}/*') ORDER BY n) GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(json.loads(line).values()) for line in ran.stdout.splitlines()] == expected


@pytest.mark.parametrize("dedupe", [(), ("x",)])
@pytest.mark.parametrize("workers", [0, 2])
def test_split_files_and_many_groups_give_the_same(tmp_path, workers, dedupe):
    """Most groups have one record, so that workers send values; the files are split."""
    count, some = 9000, 6000
    records = [{"k": n % some, "x": n, "y": "z" * (n % 90)} for n in range(count)]
    (tmp_path / "a.jsonl").write_text(lines(records[:4000]))
    (tmp_path / "b.json").write_text(json.dumps(records[4000:]))
    again = records[:300] if dedupe else []
    (tmp_path / "c.jsonl").write_text(lines(again))
    groups = GroupSettings(("k",), parse_aggregates(["count", "sum:x"]), some)
    target = grouped_target(Target.parse(str(tmp_path / "out.csv")), groups)
    sizes = Sizes(split_threshold=30_000, split=10_000, part=5000)
    work = RecordWorkSettings(FileWorkSettings(sizes=sizes), target=target, dedupe=dedupe)
    inputs = Inputs(tuple(str(tmp_path / name) for name in ("a.jsonl", "b.json", "c.jsonl")))
    report = asyncio.run(_report(Job((FileSource(inputs, work),), workers=workers)))
    assert (report.status, report.tally.read) == ("success", count + len(again))
    assert (report.tally.written, report.tally.dropped) == (some, len(again))
    with (tmp_path / "out.csv").open() as stream:
        rows = [tuple(map(int, row)) for row in list(csv.reader(stream))[1:]]
    assert rows == [
        (key, 2, 2 * key + some) if key < count - some else (key, 1, key) for key in range(some)
    ]


async def _report(job):
    run = Run(job)
    async for _ in run.parts():
        pass
    return run.report


def test_more_groups_than_allowed_end_the_run(run, files):
    files({"a.jsonl": lines({"k": n} for n in range(1000)), "out.csv": "before"})
    for workers in ("0", "2"):
        ran = run("a.jsonl", "--by", "k", "--max-keys", "999", "--to", "out.csv", "-w", workers)
        assert ran.code == 1
        assert "there are more than 999 groups: allow more with --max-keys" in ran.stdout
        assert (files({}) / "out.csv").read_text() == "before"
    ran = run("a.jsonl", "--by", "k", "--max-keys", "1000", "--to", "out.csv")
    assert ran.code == 0


def test_a_target_takes_any_number_of_groups(run, files):
    """A result that is shown is in memory, and has a limit."""
    count = 100_001
    folder = files({"a.jsonl": lines({"k": f"{n:06}", "v": n} for n in range(count))})
    shown = run("a.jsonl", "--by", "k")
    assert (shown.code, "there are more than 100,000 groups" in shown.stdout) == (1, True)
    assert run("a.jsonl", "--by", "k", "--agg", "sum:v", "--to", "out.csv").code == 0
    with (folder / "out.csv").open() as file:
        assert [(int(k), int(v)) for k, v in list(csv.reader(file))[1:]] == [
            (n, n) for n in range(count)
        ]


def test_exact_sums_do_not_depend_on_the_order(run, files):
    """The float sum of these in any other way is another one."""
    values = [1e16, 1.0, -1e16, 0.1, 2**60, 1e-9] * 40
    files({f"{n}.jsonl": lines({"x": value} for value in values[n::4]) for n in range(4)})
    for workers in ("0", "2"):
        found = run(".", "--agg", "sum:x,stddev:x", "-o", "json", "-w", workers).json["groups"]
        assert found[0]["aggregates"]["sum_x"] == math.fsum(values)
        assert found[0]["aggregates"]["stddev_x"] == pytest.approx(statistics.stdev(values))


def test_a_pipeline_file_and_a_program_give_the_same(folder, tmp_path, etl):
    file = tmp_path / "totals.toml"
    file.write_text("""
        name = "totals"
        [[source]]
        type = "files"
        paths = ["in"]
        [[transform]]
        type = "fields"
        fields = { land = "country", amount = "amount" }
        [aggregate]
        by = ["land"]
        aggregates = { n = "count", total = "sum:amount" }
        [sink]
        to = "sqlite:///out.db"
        table = "totals"
        mode = "replace"
    """)
    expected = [(row[0], *row[1:3]) for row in from_sql(folder, "country")]
    for _ in range(2):
        ran = etl("totals.toml")
        assert ran.returncode == 0, ran.stderr
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        found = database.execute("SELECT land, n, total FROM totals ORDER BY land").fetchall()
    assert found == expected

    class Rows(list[Any]):
        def load(self, records):
            self.extend(records)

    rows = Rows()
    pipeline = asyncbatch.Pipeline(
        folder, sink=rows, by="country", aggregates={"n": "count", "total": "sum:amount"}
    )
    report = asyncio.run(pipeline.run())
    assert [tuple(row.values()) for row in rows] == expected
    assert report.tally.written == len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "k", "--resume"), "aggregates are made of all inputs"),
        (("--by", "k", "--ledger", "l"), "aggregates are made of all inputs"),
        (("--by", "k", "--to", "out/"), "is one file or table, not a folder"),
        (("--by", "k", "--to", "sqlite:///x.db", "--table", "t"), "choose --mode replace"),
        (("--by", "k", "--to", "sqlite:///x.db", "--table", "t", "--key", "x"), "the columns of"),
        (("--by", "k", "--to", "x.jsonl", "--unordered"), "--unordered has no effect"),
        (("--by", "k", "--to", "x.jsonl", "--watch"), "--watch has no end"),
        (("--by", "k", "-o", "junit"), "--output junit has no place"),
        (("--by", "count"), "two columns of the result would be called 'count'"),
        (("--by", "k", "--agg", "sum:x,sum:x"), "two aggregates have the name 'sum_x'"),
        (("--by", "k", "--agg", "sum"), "write sum:FIELD"),
        (("--by", "a..b"), "is not the path of a field"),
        (("--agg", "count", "--max-keys", "5"), "--max-keys needs --by"),
    ],
)
def test_contradictions_are_usage_errors(run, files, arguments, message):
    files({"a.jsonl": '{"k": 1}\n'})
    ran = run("a.jsonl", *arguments)
    assert ran.code == 2
    assert message in " ".join(ran.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ('[sink]\nto = "out/"', "is a folder, but aggregates need one file or table"),
        ('[sink]\nto = "sqlite:///x.db"\ntable = "t"', "each run makes all aggregates anew"),
        ('[sink]\nto = "x.jsonl"\nunordered = true', "has no effect on aggregates"),
        ('[aggregate]\nby = ["k"]\naggregates = []\n[sink]\nto = "x.jsonl"', "is empty"),
    ],
)
def test_contradictions_of_a_pipeline_file(tmp_path, changed, message):
    aggregate = "" if "[aggregate]" in changed else '[aggregate]\nby = ["k"]\n'
    text = f'name = "n"\n[[source]]\ntype = "files"\npaths = ["in"]\n{aggregate}{changed}\n'
    (tmp_path / "p.toml").write_text(text)
    ran = run_command_text("etl", "p.toml", "--check", cwd=tmp_path)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_a_result_that_json_cannot_have_ends_the_run(run, files):
    """Results of this length could not be read again."""
    files({"in.jsonl": f'{{"k": "b", "x": {"9" * 4300}}}\n' * 2 + '{"k": "a", "x": 1}\n'})
    outcome = run("in.jsonl", "--by", "k", "--agg", "avg:x", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    outcome = run("in.jsonl", "--by", "k", "--agg", "sum:x", "-o", "json")
    assert outcome.code == 1
    assert "sum_x has more than 4,300 digits" in outcome.json["failures"][0]["message"]


def test_large_floats_as_keys_stay_floats(run, files):
    """Whole numbers are one key with integers; from 1e21 on, a float has no exact digits."""
    texts = ["1e30", "1e30", "1.0", "1", "-2e21", "1e20", str(10**20), str(10**25)]
    files({"a.jsonl": "\n".join(f'{{"k": {text}}}' for text in texts)})
    out = run("a.jsonl", "--by", "k", "--agg", "count", "--to", "-")
    found = {line.partition(',"count":')[0]: int(line[-2]) for line in out.stdout.splitlines()}
    assert found == {
        '{"k":-2e21': 1, '{"k":1': 2, f'{{"k":{10**20}': 2, f'{{"k":{10**25}': 1, '{"k":1e30': 2
    }  # fmt: skip
