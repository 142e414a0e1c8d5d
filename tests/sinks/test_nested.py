"""`--nested`: Parquet holds arrays and objects as STRUCT and LIST, wherever nothing is lost."""

from __future__ import annotations

import json
import os
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.sinks import parquet as parquet_module
from asyncbatch.sinks.columns import shapes as shapes_module
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.columns.shapes import MAX_DEPTH
from asyncbatch.sinks.parquet import ParquetSink
from tests.torture.values import is_nested_held

TEXT = "VARCHAR"
# By column: the type that DuckDB tells, and values of as many records. MISSING: no such field.
MISSING = object()
COLUMNS: dict[str, tuple[str, list[Any]]] = {
    "object": ("STRUCT(a BIGINT, b VARCHAR)", [{"a": 1, "b": "é\0"}, {"b": "", "a": -(2**63)}]),
    "late": ("STRUCT(a BIGINT)", [None, MISSING, {"a": 1}]),
    "optional": ("STRUCT(a BIGINT, c BIGINT[])", [{"a": 1}, {}, {"a": 2, "c": [2**63 - 1]}]),
    "nullable": ("STRUCT(a BIGINT)", [{"a": None}, {"a": 1}]),
    "optional and nullable": (TEXT, [{"a": None}, {"a": 1}, {}]),
    "integers and reals": ("DOUBLE[]", [[1, 2.5], [-0.0, 1e300], [2**53]]),
    "not exact": (TEXT, [[2**53 + 1], [0.5]]),
    "beyond 64 bits": (TEXT, [[1], [2**63]]),
    "true beside 1": (TEXT, [[1], [True]]),
    "booleans": ("BOOLEAN[]", [[True, None], [False], []]),
    "text beside 1": (TEXT, [[1, "1"], [2]]),
    "inner": ("STRUCT(a VARCHAR, b BIGINT)", [{"a": [1, "1"], "b": 2}, {"a": [], "b": 3}]),
    "object beside array": (TEXT, [{"a": 1}, [1]]),
    "inner beside": ("STRUCT(a VARCHAR)", [{"a": {"b": 1}}, {"a": [1.5]}, {"a": None}]),
    "object beside 1": (TEXT, [{"a": {"b": 1}}, {"a": 1}]),
    "empty arrays": ("VARCHAR[]", [[], [], []]),
    "nulls": ("VARCHAR[]", [[None], []]),
    "null key": ("STRUCT(a VARCHAR)", [{"a": None}, {"a": None}]),
    "empty objects": (TEXT, [{}, {}]),
    "inner empty objects": ("STRUCT(a VARCHAR)", [{"a": {}}, {"a": {}}]),
    "arrays of arrays": ("BIGINT[][]", [[[1], []], [None, [2, None]], []]),
    "items": ("STRUCT(a BIGINT, b VARCHAR)[]", [[{"a": 1}, {"b": "x"}], [], [{}]]),
    "map": (TEXT, [{f"k{n}": n for n in range(150)}, {f"k{n}": n for n in range(100, 201)}]),
    "alike": (TEXT, [{"a": 1}, {"A": 1}]),
    "no name": (TEXT, [{"": 1}]),
    "NUL": (TEXT, [{"a\0b": 1}]),
    "odd names": ('STRUCT("a.b" BIGINT, list BIGINT[])', [{"a.b": 1, "list": [1]}]),
}
RECORDS = [
    {
        name: values[place]
        for name, (_, values) in COLUMNS.items()
        if place < len(values) and values[place] is not MISSING
    }
    for place in range(3)
]


def nested(value, depth):
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(path):
    """Return the types by column, and the rows."""
    with duckdb.connect() as connection:
        relation = connection.execute(f"SELECT * FROM '{path}'")
        names = [column[0] for column in relation.description]
        rows = [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
        described = connection.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
    return {name: declared for name, declared, *_ in described}, rows


def assert_held(rows, records):
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        for name, found in row.items():
            assert is_nested_held(found, record.get(name)), (name, found, record.get(name))


@pytest.mark.parametrize("options", [(), ("-b", "1", "--load-batch", "1"), ("--workers", "2")])
def test_a_type_loses_nothing_or_the_value_is_text(run, files, options):
    folder = files({f"in/{n}.json": json.dumps(record) for n, record in enumerate(RECORDS)})
    assert run("in", "--to", "x.parquet", *options).code == 0
    types, rows = read(folder / "x.parquet")
    assert types == {name: declared for name, (declared, _) in COLUMNS.items()}
    assert_held(rows, RECORDS)
    assert set(os.listdir(folder)) == {"in", "x.parquet"}


def test_nested_values_as_text(run, files):
    records = [{"a": {"x": 1.0, "b": None}, "l": [1, 2]}, {"a": {}, "l": None}]
    folder = files({"in.jsonl": lines(records)})
    assert run("in.jsonl", "--to", "x.parquet", "--nested", "json").code == 0
    types, rows = read(folder / "x.parquet")
    assert types == {"a": TEXT, "l": TEXT}
    assert rows == [{"a": '{"x":1.0,"b":null}', "l": "[1,2]"}, {"a": "{}", "l": None}]


def test_nested_is_for_parquet(run, files):
    files({"in.jsonl": "{}"})
    for target in (("--to", "x.csv"), ()):
        outcome = run("in.jsonl", *target, "--nested", "native")
        assert outcome.code == 2
        reason = "--nested is for .parquet targets" if target else "--nested needs a target"
        assert reason in outcome.stderr


def test_a_pipeline_file(etl, files):
    job = 'name = "j"\n[[source]]\ntype = "files"\npaths = ["in.jsonl"]\n[sink]\nto = "{}"\n'
    folder = files(
        {
            "in.jsonl": '{"a": {"b": 1}}\n',
            "native.toml": job.format("native.parquet"),
            "text.toml": job.format("text.parquet") + 'nested = "json"\n',
            "csv.toml": job.format("x.csv") + 'nested = "json"\n',
        }
    )
    for name, declared in {"native": "STRUCT(b BIGINT)", "text": TEXT}.items():
        assert etl(f"{name}.toml", "-q").returncode == 0
        assert read(folder / f"{name}.parquet")[0] == {"a": declared}
    outcome = etl("csv.toml", "--check")
    assert outcome.returncode == 2
    assert "is only for Parquet files" in outcome.stderr


@pytest.mark.parametrize(
    ("later", "declared"),
    [
        ({"a": 2, "n": 2.5, "l": []}, "STRUCT(a BIGINT, n DOUBLE, l VARCHAR[], o BIGINT)"),
        ({"a": 2, "n": "x", "l": []}, TEXT),
        ({"a": 2, "n": 1, "l": [], "o": None}, TEXT),  # missing in the first run, null now
        ({"a": 2, "n": 1, "l": [[1]], "z": {"y": 1}}, None),
        ("x", TEXT),
    ],
)
def test_a_resumed_run_holds_the_values_of_both(run, files, later, declared):
    first = [{"v": {"a": 1, "n": 1, "l": []}}, {"v": {"a": 1, "n": 1.5, "l": [], "o": 7}}, {}]
    folder = files({"in/1.jsonl": lines([{"i": 0}, *first]), "in/2.jsonl": '{"w": {}}'})
    job = ("in", "--to", "x.parquet", "--resume", "--load-batch", "1")
    assert run(*job).code == 0
    assert read(folder / "x.parquet")[0]["v"].startswith("STRUCT(")
    second = [{"v": later, "w": {"b": 1}}]
    files({"in/3.jsonl": lines(second)})
    assert run(*job).code == 0
    types, rows = read(folder / "x.parquet")
    assert declared in (None, types["v"])
    assert types["w"] == "STRUCT(b BIGINT)"
    assert_held(rows, [{"i": 0}, *first, {"w": {}}, *second])


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([2**53 + 1, 2**64, 0.5, 1.0]),
    st.sampled_from(["", "a", "[1]"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abA"), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({"v": VALUES}, optional={"w": VALUES}), min_size=1)


def write(path, rows, size):
    sink = ParquetSink(str(path))
    sink.open()
    for start in range(0, len(rows), size):
        assert sink.load(make_block(rows[start : start + size])) == []
    assert sink.finish(succeeded=True, ended=True)
    table = pq.read_table(path)
    return table.schema.remove_metadata(), table.to_pylist()


@given(ROWS, st.integers(1, 3), st.sampled_from([1, 3]))
def test_a_file_does_not_depend_on_row_groups_and_loads(tmp_path_factory, rows, size, group):
    path = tmp_path_factory.getbasetemp() / "nested.parquet"
    rows = [{"i": number, **row} for number, row in enumerate(rows)]
    whole = write(path, rows, len(rows))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(parquet_module, "ROW_GROUP", group)
        monkeypatch.setattr(shapes_module, "_SLICE_CHARS", size)
        assert repr(write(path, rows, size)) == repr(whole)
    for row, found in zip(rows, whole[1], strict=True):
        for name in found:
            value = row.get(name)
            if isinstance(value, (dict, list)):
                assert is_nested_held(found[name], value)


def test_depth(tmp_path):
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 500):
        rows = [{"v": nested(1, depth)}]
        write(tmp_path / "x.parquet", rows, 1)
        assert_held(read(tmp_path / "x.parquet")[1], rows)


def test_the_columns_with_the_most_parts_are_text(tmp_path, monkeypatch):
    rows = [{"many": {"a": 1, "b": 2, "c": 3}, "few": {"a": 1}, "list": [1]}]
    monkeypatch.setattr(shapes_module, "MAX_PARTS", 5)
    schema, found = write(tmp_path / "x.parquet", rows, 1)
    assert [str(one) for one in schema.types] == [
        "string", "struct<a: int64>", "list<element: int64>"
    ]  # fmt: skip
    assert_held(found, rows)


def test_row_groups_are_bounded_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "GROUP_BYTES", 100_000)
    rows = [{"v": {"a": "x" * 15_000}, "n": number} for number in range(12)]
    write(tmp_path / "x.parquet", rows, 2)
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 4]
    assert_held(read(tmp_path / "x.parquet")[1], rows)
