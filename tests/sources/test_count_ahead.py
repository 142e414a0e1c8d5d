"""Tests of the count of inputs ahead of the search."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.search import Search
from asyncbatch.sources.selection import Selection, Shard
from tests.processes import wait_until


def counted(inputs: Inputs, search: Search | None = None):
    """Return what is expected of a search once the count is complete."""
    search = search or Search(inputs)
    search.count_ahead()
    wait_until(lambda: search.expected.is_complete)
    return search.expected


def test_the_count_is_that_of_the_search_before_it_has_found_a_file(tmp_path):
    for number in range(3000):
        path = tmp_path / f"{number % 7}" / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("1" * (number % 5 + 1))
    (tmp_path / "other.txt").write_text("no")
    inputs = Inputs((str(tmp_path),))
    search = Search(inputs)
    found = counted(inputs, search)
    assert search.found_count == 0
    assert found.files == 3000
    # the sizes are left out where stat is slow: on a busy machine too
    assert found.bytes in (None, sum(number % 5 + 1 for number in range(3000)))


def test_the_bytes_of_few_files_are_known(tmp_path):
    sizes = {"a.json": 3, "b.json": 70_000, "c.jsonl": 0}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b" " * size)
    inputs = Inputs((str(tmp_path),))
    search = Search(inputs)
    search.open()
    assert search.expected.files == 3
    assert search.expected.bytes is None
    search.count_ahead()
    wait_until(lambda: search.expected.bytes is not None)
    assert search.expected.bytes == 70_003


def test_a_pipe_makes_the_bytes_unknown(tmp_path):
    (tmp_path / "a.json").write_text("1")
    os.mkfifo(tmp_path / "b.json")
    arguments = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    found = counted(Inputs(arguments))
    assert (found.files, found.bytes) == (2, None)


def test_what_costs_requests_or_reads_is_not_counted(tmp_path):
    (tmp_path / "list").write_text("a.json\n")
    for inputs in (
        Inputs(("s3://bucket/in/",)),
        Inputs(("-",)),
        Inputs((str(tmp_path / "a.zip"),)),
        Inputs(files_from=str(tmp_path / "list")),
    ):
        assert not inputs.may_be_counted


@given(
    names=st.sets(st.from_regex(r"[ab.]{1,3}(/[ab.]{1,2})?\.(json|txt)", fullmatch=True)),
    options=st.fixed_dictionaries(
        {
            "selection": st.builds(
                Selection,
                exclude=st.sampled_from([(), ("a*",), ("**/b.json",)]),
                hidden=st.booleans(),
            ),
            "limit": st.one_of(st.none(), st.integers(1, 3)),
            "shard": st.one_of(st.none(), st.just(Shard(1, 2))),
        }
    ),
    times=st.integers(1, 2),
)
def test_the_count_is_the_number_of_found_paths(tmp_path_factory, names, options, times):
    folder = tmp_path_factory.mktemp("count")
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text("1")
    inputs = Inputs((str(folder),) * times, **options)
    assert counted(inputs).files == len(list(inputs.find()))
