"""Shards of the inputs: disjoint, complete, and the same on every machine."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import UsageError
from asyncbatch.sources.identity import identity
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import Shard
from tests.conftest import many

NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def shards(count):
    return [Shard(number, count) for number in range(1, count + 1)]


# Identities


@pytest.mark.parametrize(("path", "name"), [
    ("data/x.json", "data/x.json"), ("./data//x.json", "data/x.json"), ("-", "-"), ("./-", "-"),
    ("data/../data/./x.json", "data/x.json"), ("/srv/x.json", "/srv/x.json"),
    ("//srv/x.json", "/srv/x.json"), ("../x.json", "../x.json"), ("a\udcff.json", "a\udcff.json"),
])  # fmt: skip
def test_an_identity_is_the_path_normalised(path, name):
    assert identity(path) == name


@pytest.mark.parametrize("root", ["data", "./data/", "{cwd}/data", "data/sub/.."])
@pytest.mark.parametrize("path", ["data/a/x.json", "./data//a/x.json", "{cwd}/data/a/x.json"])
def test_an_identity_below_a_root_is_the_same_however_both_are_spelled(
    tmp_path, monkeypatch, root, path
):
    monkeypatch.chdir(tmp_path)
    cwd = str(tmp_path)
    assert identity(path.format(cwd=cwd), root.format(cwd=cwd)) == "a/x.json"


def test_identities_at_and_outside_of_a_root(monkeypatch):
    monkeypatch.chdir("/")
    assert identity("/srv/x.json", "/") == "srv/x.json"
    assert identity("/", "/") == identity("/srv", "/srv/") == "."
    assert identity("-", "/srv") == "-"
    for outside in ("/srv2/x.json", "/x.json", "x.json", "/srv/../x.json"):
        with pytest.raises(UsageError, match="is not below --root /srv"):
            identity(outside, "/srv")


# The partition


@given(PATHS, st.integers(1, 50))
def test_each_input_is_in_exactly_one_shard(path, count):
    assert sum(shard.has(identity(path)) for shard in shards(count)) == 1


@given(PATHS, st.sampled_from(["./{}", ".//{}", "x/../{}", "././{}"]), st.integers(1, 50))
def test_no_spelling_of_a_path_changes_its_shard(path, spelling, count):
    for shard in shards(count):
        assert shard.has(identity(path)) == shard.has(identity(spelling.format(path)))


@given(st.lists(PATHS, unique_by=identity, max_size=30), st.integers(1, 8), st.randoms())
def test_shards_of_a_list_are_disjoint_and_complete_in_any_order(paths, count, random):
    parts = [[path for path in paths if shard.has(identity(path))] for shard in shards(count)]
    assert Counter(path for part in parts for path in part) == Counter(paths)
    shuffled = random.sample(paths, len(paths))
    for shard, part in zip(shards(count), parts, strict=True):
        assert sorted(path for path in shuffled if shard.has(identity(path))) == sorted(part)


def test_the_assignment_never_changes_between_releases():
    names = ["data/a.json", "data/b.json", "data/c.json", "data/é.json", "data/\udcff.json"]
    assert [[name for name in names if shard.has(name)] for shard in shards(3)] == EXPECTED


EXPECTED = [["data/a.json"], ["data/c.json", "data/\udcff.json"], ["data/b.json", "data/é.json"]]


def test_shards_are_about_of_one_size():
    sizes = [sum(shard.has(f"data/{n:05}.json") for n in range(10_000)) for shard in shards(4)]
    assert sum(sizes) == 10_000
    assert all(2300 < size < 2700 for size in sizes)


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/5", "1 / 3", "٣/٤"]
)
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match="write I/N"):
        Shard.parse(text)
    with pytest.raises(UsageError, match="there is no shard"):
        Inputs(("x",), shard=Shard(4, 3)).check()


def test_inputs_of_a_shard(files, monkeypatch):
    monkeypatch.chdir(files({f"data/{name}": text for name, text in many(50).items()}))
    whole = list(Inputs(("data",)).find())
    parts = [list(Inputs(("./data/",), shard=shard).find()) for shard in shards(3)]
    assert all(parts)
    assert sorted(os.path.normpath(path) for part in parts for path in part) == whole


# The command


def processed(outcome):
    assert outcome.code == 0, outcome.stderr
    return [event["file"] for event in outcome.events]


@pytest.mark.parametrize("arguments", [
    ("data",), ("data/*.json",), ("data", "data/00001.json"), ("--files-from", "list"),
    ("data", "--limit", "11"), ("data", "-w", "2", "-b", "3"),
])  # fmt: skip
def test_shards_of_a_run_are_the_run(run, files, arguments):
    folder = files({f"data/{name}": text for name, text in many(30).items()})
    (folder / "list").write_text("".join(f"data/{n:05}.json\n" for n in range(5, 25)))
    whole = processed(run(*arguments, "-o", "jsonl"))
    parts = [processed(run(*arguments, "-o", "jsonl", "--shard", f"{n}/3")) for n in (1, 2, 3)]
    assert all(parts)
    assert sorted(file for part in parts for file in part) == sorted(whole)


def test_a_root_makes_shards_the_same_on_every_machine(run, files):
    folder = files({f"here/data/{name}": text for name, text in many(20).items()})
    options = ("--shard", "2/3", "-o", "jsonl")
    names = [os.path.basename(file) for file in processed(
        run("here/data", "--root", "here", *options)
    )]  # fmt: skip
    (folder / "there").mkdir()
    (folder / "here/data").rename(folder / "there/data")
    moved = processed(run(folder / "there/data", "--root", folder / "there", *options))
    assert [os.path.basename(file) for file in moved] == names
    outside = run("there/data", "--root", "there/data/x", *options)
    assert outside.code == 2
    assert "there/data is not below --root there/data/x" in outside.stderr
    (folder / "list").write_text("there/data/00001.json\nelsewhere.json\n")
    listed = run("--files-from", "list", "--root", "there", *options)
    assert listed.code == 2
    assert "elsewhere.json is not below --root there" in listed.stderr


def test_an_empty_shard_is_a_success_with_what_it_should_write(run, files):
    folder = files({"data/only.json": "[1, 2]"})
    empty = next(n for n in (1, 2) if not Shard(n, 2).has("data/only.json"))
    shard = ("--shard", f"{empty}/2")
    outcome = run("data", *shard, "-o", "json", "--to", "part.csv", "--columns", "a")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.json["status"] == "success"
    assert outcome.json["files"]["total"] == 0
    assert (folder / "part.csv").exists()
    planned = run("data", *shard, "--dry-run")
    assert planned.code == 0
    assert planned.stdout.startswith("Would process 0 files")


def test_nothing_at_all_is_still_an_error(run, files):
    (files({}) / "data").mkdir()
    for number in (1, 2):
        outcome = run("data", "--shard", f"{number}/2")
        assert outcome.code == 2
        assert "no JSON files in data" in outcome.stderr


def test_standard_input_is_in_the_first_shard(run):
    counts = [
        run("-", "--shard", f"{n}/3", "-o", "json", stdin=b"[1, 2]").json["records"]["read"]
        for n in (1, 2, 3)
    ]
    assert counts == [2, 0, 0]


def test_a_dry_run_lists_the_shard(run, files):
    files({f"data/{name}": text for name, text in many(20).items()})
    options = ("data", "--shard", "1/3", "-o", "jsonl")
    assert processed(run(*options, "--dry-run")) == processed(run(*options))


def test_outputs_of_two_shards_never_meet(run, files):
    files({"data/a.json": "1", "data/a.jsonl": "2\n"})
    for number in (1, 2):
        outcome = run("data", "--to", "out/", "--to-format", "json", "--shard", f"{number}/2")
        assert outcome.code == 2
        assert "would both be written to" in outcome.stderr


@pytest.mark.parametrize("arguments", [
    ("data", "--shard", "4/3"), ("data", "--shard", "x"), ("data", "--root", ""),
    ("--from-dead-letter", "bad.jsonl", "--shard", "1/2"),
])  # fmt: skip
def test_what_cannot_be_meant(run, files, arguments):
    files({"data/a.json": "1", "bad.jsonl": json.dumps({"file": "data/a.json"}) + "\n"})
    outcome = run(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.stderr
    assert "--shard" in outcome.stderr or "shard" in outcome.stderr or "--root" in outcome.stderr
