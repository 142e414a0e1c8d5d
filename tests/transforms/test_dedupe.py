"""`dedupe`: it keeps exactly the first record of each key, in bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncbatch.errors import SinkError
from asyncbatch.transforms.dedupe import DIGEST_BYTES, DigestSet, KeyDigest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "a"]),
    lambda deep: st.lists(deep, max_size=2) | st.dictionaries(st.sampled_from("ab"), deep),
)


def kept(records, key=("id",), most_in_set=2):
    with DigestSet(most_in_set) as seen:
        digest = KeyDigest(key)
        return [record for record in records if seen.add((digest(record),))[0]]


def test_the_first_of_each_key_is_kept():
    records = [{"id": 1, "n": 1}, {"id": 2, "n": 2}, {"id": 1, "n": 3}, {"id": "1", "n": 4}]
    assert [record["n"] for record in kept(records)] == [1, 2, 4]


def test_keys_of_several_fields():
    records = [{"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 3}, {"a": {"b": 1}, "c": 2, "d": 1}]
    assert kept(records, ("a.b", "/c")) == records[:2]
    assert kept([{"a": "x", "b": "y"}, {"a": "xy", "b": ""}], ("a", "b"))[1:]


def test_records_without_the_key_are_kept():
    records = [{}, {}, {"id": None}, [1], [1], "x", {"id": 1}, {"id": 1}]
    assert kept(records) == records[:-1]
    assert kept([{"id": 1}, {"id": 1}], ("id", "other")) == [{"id": 1}]


def test_keys_are_equal_by_value():
    assert kept([{"id": 1}, {"id": 1.0}, {"id": 1.5}, {"id": True}]) == [
        {"id": 1}, {"id": 1.5}, {"id": True}
    ]  # fmt: skip
    assert len(kept([{"id": {"a": 1, "b": 2}}, {"id": {"b": 2, "a": 1}}])) == 1


@given(st.lists(JSON), st.integers(0, 5))
@example([{}, 1, "", "1", "a", 2, 3, -1, -2, -3, [], [1], [2], True, False, {"a": 1}] * 2, 2)
def test_as_a_set_would_do_it(keys, most_in_set):
    digest = KeyDigest(("id",))
    seen, expected = set(), []
    for key in keys:
        found = digest({"id": key})
        if found is None or found not in seen:
            expected.append({"id": key})
            seen.add(found)
    assert kept([{"id": key} for key in keys], most_in_set=most_in_set) == expected


@given(JSON, JSON)
def test_digests_are_those_of_values(one, other):
    digest = KeyDigest(("id",))
    same = digest({"id": one}) == digest({"id": other})
    assert same == (_sorted(one) == _sorted(other))


def _sorted(value):
    if isinstance(value, dict):
        return "o", sorted((key, _sorted(item)) for key, item in value.items())
    if isinstance(value, list):
        return "a", [_sorted(item) for item in value]
    return repr(value)


# Two of them may hold a third one across their border. All have the same last bytes.
HALVES = st.sampled_from([b"a" * 6 + b"zz", b"b" * 6 + b"zz", b"c" * 6 + b"zz", b"z" * 8])
ALIKE = st.builds(bytes.__add__, HALVES, HALVES)


@given(st.lists(ALIKE), st.integers(0, 8))
@example([b"a" * 6 + b"zz" + b"b" * 6 + b"zz", b"c" * 6 + b"zz" + b"z" * 8,
          b"b" * 6 + b"zz" + b"c" * 6 + b"zz"], 1)  # fmt: skip
def test_a_digest_is_not_found_across_others(digests, most_in_set):
    with DigestSet(most_in_set) as seen:
        expected = [digest not in digests[:at] for at, digest in enumerate(digests)]
        assert seen.add(digests) == expected
        assert all(digest in seen for digest in digests)


def test_memory_is_bounded():
    with DigestSet(1000) as seen:
        seen.add(_digests(2000))
        tracemalloc.start()
        assert all(seen.add(_digests(52_000, 2000)))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # 50,000 in a set: 5 MB
        tracemalloc.stop()
        assert not any(seen.add(_digests(52_000)))
    assert all(DigestSet().add([None, None]))


def _digests(stop, start=0):
    return (number.to_bytes(DIGEST_BYTES) for number in range(start, stop))


def test_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    with DigestSet(0) as seen:
        seen.add([b"x" * DIGEST_BYTES])
        assert seen._rest is not None
        seen._rest.execute("PRAGMA max_page_count = 1")  # a disk that is full, to SQLite
        with pytest.raises(SinkError, match=r"dedupe cannot store its keys: .*full"):
            seen.add(_digests(100_000))
