"""Totals of groups: any division of the records, in memory or in temporary files, is the same."""

from __future__ import annotations

import tempfile
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import SinkError, TooManyKeysError
from asyncbatch.sinks.group_encoding import fold_groups
from asyncbatch.sinks.group_totals import GroupTotals
from asyncbatch.storage.sorted_runs import SortedRuns
from asyncbatch.windows.aggregates import AggregateSet, parse_aggregates
from asyncbatch.windows.events import KeyFields
from asyncbatch.windows.groups import GroupColumns, GroupSettings

MANY = "count,sum:v,avg:v,min:v,max:v,stddev:v,distinct:v,p50:v,p90:v,sum:w,max:w"
RECIPES = ["count", "sum:v", "count,min:v,max:v,sum:v", "avg:v", MANY]
SCALARS = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([1.0, 1.5, 1e30, -0.0]), st.text(max_size=2)
)
NUMBERS = st.one_of(
    st.integers(-9, 9),
    st.sampled_from([2**70, -(2**70)]),
    st.floats(-9, 9),
    st.sampled_from([1e308, -1e308, 5e-324, -0.0, 1e16]),
)


def settings_of(by, text, **more):
    return GroupSettings(by, parse_aggregates(text.split(",")), **more)


def columns_of(settings, records):
    """Return records as columns: the key of each, then the values of the fields."""
    by = KeyFields(settings.by)
    fields = AggregateSet(settings.aggregates).fields
    keys = by.column([[one[name] for one in records] for name in settings.by])
    return GroupColumns(
        len(records), keys, tuple([one[name] for one in records] for name in fields)
    )


def totals_of(settings, parts, **bounds):
    """Return the results of parts of records: some as they are, some as totals of groups."""
    recipe = AggregateSet(settings.aggregates)
    with closing(GroupTotals(settings, **bounds)) as found:
        for is_folded, records in parts:
            columns = columns_of(settings, records)
            if is_folded:
                found.merge(fold_groups(recipe, columns))
            else:
                found.add(columns)
        return list(found.results())


RECORDS = st.lists(st.fixed_dictionaries({"k": SCALARS, "l": SCALARS, "v": NUMBERS, "w": NUMBERS}))
PARTS = st.lists(st.tuples(st.booleans(), RECORDS.filter(bool)), max_size=12)


@given(PARTS, st.sampled_from(RECIPES), st.sampled_from([(), ("k",), ("k", "l")]))
def test_results_do_not_depend_on_what_is_on_the_disk(parts, text, by):
    settings = settings_of(by, text)
    whole = [(False, [one for _, records in parts for one in records])]
    expected = repr(totals_of(settings, whole if whole[0][1] else []))
    assert repr(totals_of(settings, parts)) == expected
    bounds = {"most_in_memory": 2, "most_values": 20}
    assert repr(totals_of(settings, parts, **bounds)) == expected


def test_very_many_runs_are_merged():
    settings = settings_of(("k",), "count,sum:v")
    parts = [(False, [{"k": k % 777, "v": k} for k in range(at, at + 30)]) for at in range(9000)]
    found = totals_of(settings, parts, most_in_memory=20)
    expected = totals_of(settings, parts)
    assert (len(found), found) == (777, expected)


def test_the_limit_counts_groups_on_the_disk():
    parts = [(False, [{"k": str(k % 100)} for k in range(at, at + 10)]) for at in range(0, 200, 10)]
    assert (
        len(totals_of(settings_of(("k",), "count", max_keys=100), parts, most_in_memory=15)) == 100
    )
    with pytest.raises(TooManyKeysError):
        totals_of(settings_of(("k",), "count", max_keys=99), parts, most_in_memory=15)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(SinkError, match=r"^/nonexistent cannot hold the groups .*TMPDIR"):
        SortedRuns[int]().add([1], int)
