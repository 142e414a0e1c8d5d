"""Parquet files: typed columns that widen without changing a value."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks import parquet as parquet_module
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.parquet import ParquetSink
from tests.sinks.test_block import PLAIN_ROWS, is_held

EXACT = 2**53


def write(path, *blocks, ended=True):
    """Write blocks of rows; return all refusals."""
    sink = ParquetSink(str(path))
    sink.open()
    try:
        return [refusal for rows in blocks for refusal in sink.load(make_block(rows))]
    finally:
        assert sink.finish(succeeded=True, ended=ended) == ended


def types(path):
    schema = pyarrow.parquet.read_schema(path)
    return dict(zip(schema.names, map(str, schema.types), strict=True))


def read(path):
    return pyarrow.parquet.read_table(path).to_pylist()


@pytest.fixture(params=[1, 100_000], ids=["written at once", "kept"])
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP", request.param)
    yield str(tmp_path / "out.parquet")
    assert set(os.listdir(tmp_path)) <= {"in.json", "out.parquet"}


def test_columns_have_types(path):
    row = {"i": 2**63 - 1, "x": -0.0, "b": True, "t": "é\0", "n": None, "l": [1, {}]}
    assert write(path, [row]) == []
    assert types(path) == {
        "i": "int64",
        "x": "double",
        "b": "bool",
        "t": "string",
        "n": "string",
        "l": "string",
    }
    assert read(path) == [{**row, "l": "[1,{}]"}]


@pytest.mark.parametrize(
    ("first", "second", "declared", "values"),
    [
        (None, 5, "int64", [None, 5]),
        (None, "x", "string", [None, "x"]),
        (True, 7, "string", ["true", "7"]),
        (EXACT, 0.5, "double", [float(EXACT), 0.5]),
        (EXACT + 1, 0.5, "string", [str(EXACT + 1), "0.5"]),
        (1e300, "x", "string", ["1e300", "x"]),
        (True, "x", "string", ["true", "x"]),
        ("007", 7, "string", ["007", "7"]),
    ],
)
def test_columns_widen(path, first, second, declared, values):
    assert write(path, [{"v": first, "w": 1}], [{"v": second, "w": 2}], [{"late": True}]) == []
    assert types(path) == {"v": declared, "w": "int64", "late": "bool"}
    assert read(path) == [
        {"v": values[0], "w": 1, "late": None},
        {"v": values[1], "w": 2, "late": None},
        {"v": None, "w": None, "late": True},
    ]


def test_without_columns_no_file_is_left(path, run, files):
    Path(path).write_text("earlier")
    write(path)
    assert not os.path.exists(path)
    folder = files({"in.json": "[]", "out.parquet": "earlier"})
    outcome = run("in.json", "--to", "out.parquet")
    assert outcome.code == 0
    assert "no record had a field, so out.parquet was not written" in outcome.stdout
    assert not (folder / "out.parquet").exists()


def test_objects_without_fields(path):
    refusals = write(path, [{}], [{"a": 1}, {}], [{}])
    assert [refusal.row for refusal in refusals] == [0]
    assert read(path) == [{"a": 1}, {"a": None}, {"a": None}]


def test_too_many_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "MAX_FIELDS", 2)
    (refusal,) = write(tmp_path / "out", [{"a": 1, "b": 1}], [{"a": 2}, {"a": 3, "c": 1}])
    assert (refusal.row, refusal.message) == (1, "field 'c': the table already has 2 columns")
    assert read(tmp_path / "out") == [{"a": 1, "b": 1}, {"a": 2, "b": None}]


def test_row_groups_hold_many_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 5)
    path = tmp_path / "out.parquet"
    write(path, *([{"a": number}] for number in range(12)))
    file = pyarrow.parquet.ParquetFile(path)
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [5, 5, 2]
    assert [row["a"] for row in read(path)] == list(range(12))


@pytest.mark.parametrize("size", [1, 100_000])
def test_the_target_appears_only_at_the_end(tmp_path, monkeypatch, size):
    monkeypatch.setattr(parquet_module, "ROW_GROUP", size)
    path = tmp_path / "out.parquet"
    path.write_text("before")
    write(path, [{"a": 1}], [{"a": "x"}], ended=False)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncbatch\[parquet\]'"):
        ParquetSink(str(tmp_path / "out")).open()


@pytest.mark.parametrize("name", ["missing/out.parquet", "."])
def test_a_target_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UsageError, match="cannot write"):
        ParquetSink(os.path.join(tmp_path, name)).open()


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 1)
    sink = ParquetSink("/dev/full")
    sink.open()
    with pytest.raises(SinkError, match=r"/dev/full: .*No space left"):
        sink.load(make_block([{"a": os.urandom(50_000).hex()} for _ in range(10)]))
    assert not sink.finish(succeeded=False, ended=False)


def test_a_device_cannot_be_rewritten(monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 1)
    sink = ParquetSink("/dev/null")
    sink.open()
    sink.load(make_block([{"a": 1}]))
    with pytest.raises(SinkError, match="cannot be read again"):
        sink.load(make_block([{"a": "x"}]))
    assert not sink.finish(succeeded=False, ended=False)


@given(PLAIN_ROWS, st.integers(1, 4), st.sampled_from([1, 3, 100_000]))
def test_rows_come_back_however_they_are_split(tmp_path_factory, rows, size, group):
    rows = [{"_": number, **row} for number, row in enumerate(rows)]
    path = tmp_path_factory.getbasetemp() / "split.parquet"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(parquet_module, "ROW_GROUP", group)
        write(path, *(rows[start : start + size] for start in range(0, len(rows), size)))
    found = read(path) if rows else []
    assert [list(row) for row in found] == [make_block(rows).names] * len(rows)
    for row, values in zip(rows, found, strict=True):
        for name, value in values.items():
            assert is_held(value, row.get(name)), name


def test_only_values_that_repeat_have_a_dictionary(tmp_path):
    rows = [{"key.a": f"k{n}", "kind.b": f"k{n % 3}", "none": None} for n in range(2000)]
    assert write(tmp_path / "x.parquet", rows) == []
    group = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0)
    assert [group.column(n).has_dictionary_page for n in range(2)] == [False, True]
    assert read(tmp_path / "x.parquet") == rows
