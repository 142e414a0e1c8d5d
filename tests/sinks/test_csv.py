"""CSV files: the cells that a reader gets, and rejected rows."""

from __future__ import annotations

import csv
import json
import os
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.row_writer import cells_of
from asyncbatch.sinks.text_files import CsvSink
from tests.sinks.test_block import PLAIN_ROWS, TEXTS


def cells(rows):
    """Return rows as the workers send them."""
    return list(map(cells_of, rows))


def write(path, *blocks, columns=None, delimiter=",", ended=True):
    """Write blocks of rows; return the refusals of each block."""
    sink = CsvSink(str(path), delimiter=delimiter, columns=columns)
    sink.open()
    refusals = [sink.load(cells(rows)) for rows in blocks]
    assert sink.finish(succeeded=True, ended=ended) == ended
    return refusals


def test_header_and_rows(tmp_path):
    path = tmp_path / "out.csv"
    rows = [{"id": 1, "ok": True, "x": 0.1}, {"id": 2, "name": "é", "ok": False, "x": None}]
    assert write(path, rows) == [[]]
    assert path.read_bytes() == "id,ok,x,name\n1,true,0.1,\n2,false,,é\n".encode()


def test_named_columns_choose_and_order(tmp_path):
    path = tmp_path / "out.csv"
    refusals = write(path, [{"a": 1, "b": 2}], [{"c": 3, "b": 4}], columns=("b", "a", "z"))
    assert refusals == [[], []]
    assert path.read_text() == "b,a,z\n2,1,\n4,,\n"


def test_a_field_after_the_header_refuses_its_rows_only(tmp_path):
    path = tmp_path / "out.csv"
    late = [{"a": 2}, {"a": 3, "b": 1, "c": []}, {"a": 4, "b": None}]
    _, (refusal,) = write(path, [{"a": 1}], late)
    assert refusal.row == 1
    assert "field 'b'" in refusal.message
    assert "field 'c'" in refusal.message
    assert "--columns" in refusal.message
    assert path.read_text() == "a\n1\n2\n4\n"


def test_rows_of_one_record_are_refused_together(tmp_path):
    sink = CsvSink(str(tmp_path / "out.csv"), delimiter=",", columns=None)
    sink.open()
    sink.load([{"a": "1"}])
    refusals = sink.load([{"a": "2"}, {"a": "3"}, {"b": "4"}, {"a": "5"}], [0, 1, 1, 2])
    assert [refusal.row for refusal in refusals] == [1, 2]
    assert {"field 'b'" in refusal.message for refusal in refusals} == {True}
    sink.finish(succeeded=True, ended=True)
    assert (tmp_path / "out.csv").read_text() == "a\n1\n2\n5\n"


@pytest.mark.parametrize(("columns", "expected"), [(None, ""), (("a", "b c"), "a,b c\n")])
def test_no_rows(tmp_path, columns, expected):
    path = tmp_path / "out.csv"
    write(path, columns=columns)
    assert path.read_text() == expected


def test_objects_without_fields(tmp_path):
    path = tmp_path / "out.csv"
    first, second = write(path, [{}], [{"a": 1, "b": 2}, {}])
    assert [refusal.row for refusal in first] == [0]
    assert not second
    assert path.read_text() == "a,b\n1,2\n,\n"


def test_delimiter(tmp_path):
    path = tmp_path / "out.csv"
    write(path, [{"a": "x\ty", "b": 1}], delimiter="\t")
    assert path.read_text() == 'a\tb\n"x\ty"\t1\n'
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(UsageError, match="a delimiter must be one character"):
            write(path, delimiter=wrong)


def test_the_target_appears_only_at_the_end(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("before")
    write(path, [{"a": 1}], ended=False)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("name", ["missing/out.csv", "."])
def test_a_target_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UsageError, match="cannot write"):
        write(tmp_path / name)


def test_a_full_disk(tmp_path):
    sink = CsvSink("/dev/full", delimiter=",", columns=None)
    sink.open()
    with pytest.raises(SinkError, match="/dev/full: No space left"):
        sink.load([{"a": "x" * 10_000}] * 10)
    assert not sink.finish(succeeded=False, ended=False)


@given(PLAIN_ROWS, st.sampled_from(",;\t|"))
def test_a_reader_gets_the_texts_back(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.getbasetemp() / "read_back.csv"
    write(path, rows, delimiter=delimiter)
    with open(path, newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream, delimiter=delimiter))
    names = list(dict.fromkeys(chain(*rows)))
    if not names:
        assert not lines
        return
    assert lines[0] == names
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        for cell, name in zip(line, names, strict=True):
            value = row.get(name)
            if value is None or isinstance(value, str):
                assert cell == (value or "")
            else:
                assert repr(json.loads(cell)) == repr(value)


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_any_name_can_be_a_header(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / "header.csv"
    write(path, columns=tuple(names))
    with open(path, newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [names]
