"""The files that inputs name: their selection, names and order."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from contextlib import closing

import pytest

from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import Patterns, Selection


@pytest.fixture
def tree(files, monkeypatch):
    root = files(
        dict.fromkeys(
            [
                "data/b.json",
                "data/a/z.json",
                "data/a/deep/x.jsonl",
                "data/a.json",
                "data/c.json.gz",
                "data/notes.txt",
                "data/.hidden.json",
                "data/.git/config.json",
                "data/node_modules/p.json",
                "other/one.json",
            ],
            "[1]",
        )
    )
    monkeypatch.chdir(root)
    return root


def found(*paths, limit=None, **selection):
    return list(Inputs(paths, selection=Selection(**selection), limit=limit).find())


VISIBLE = [
    "data/a/deep/x.jsonl",
    "data/a/z.json",
    "data/a.json",
    "data/b.json",
    "data/c.json.gz",
    "data/node_modules/p.json",
]


def test_order_is_by_name_and_depth_first(tree):
    assert found("data") == VISIBLE


@pytest.mark.parametrize(("argument", "first"), [
    ("data/", "data/a/deep/x.jsonl"),
    ("./data", "./data/a/deep/x.jsonl"),
    ("data/../data", "data/../data/a/deep/x.jsonl"),
])  # fmt: skip
def test_names_are_the_argument_joined_with_what_is_below(tree, argument, first):
    assert found(argument)[0] == first


def test_arguments_come_as_given(tree):
    assert found("other", "data/b.json", "data/a")[:2] == ["other/one.json", "data/b.json"]


def test_patterns_match_names_or_paths(tree):
    assert found("data", patterns=("*.txt",)) == ["data/notes.txt"]
    assert found("data", patterns=("a/*.json",)) == ["data/a/z.json"]
    assert found("data", patterns=("a/**",)) == ["data/a/deep/x.jsonl", "data/a/z.json"]
    assert found("data", patterns=("**/[xz].json*",)) == ["data/a/deep/x.jsonl", "data/a/z.json"]
    assert found("data", patterns=("?.json", "*.txt")) == [
        "data/a/z.json", "data/a.json", "data/b.json", "data/node_modules/p.json", "data/notes.txt",
    ]  # fmt: skip


def test_exclude_prunes_folders_and_files(tree):
    assert "data/node_modules/p.json" not in found("data", exclude=("node_modules",))
    assert found("data", exclude=("a", "node_modules", "b.*")) == ["data/a.json", "data/c.json.gz"]
    assert "data/a/deep/x.jsonl" not in found("data", exclude=("a/deep",))
    assert found("data/**/*.json", exclude=("a", "node_*")) == ["data/a.json", "data/b.json"]
    assert found("data/**/*.json", exclude=("a/*", "[bp].*")) == ["data/a.json"]


def test_hidden_only_when_asked(tree):
    assert found("data", hidden=True)[:2] == ["data/.git/config.json", "data/.hidden.json"]


def test_named_files_bypass_patterns_and_hidden_but_not_excludes(tree):
    assert found("data/notes.txt", "data/.hidden.json") == ["data/notes.txt", "data/.hidden.json"]
    assert found("data/notes.txt", "data/b.json", exclude=("*.txt",)) == ["data/b.json"]


@pytest.mark.parametrize("arguments", [
    ("data", "data/a"), ("data/a", "data"), ("data", "data"), ("data", "./data/"),
    ("data/b.json", "data"), ("data", "data/*.json"), ("data/**/*.json", "data"),
])  # fmt: skip
def test_no_file_comes_twice(tree, arguments):
    names = [os.path.normpath(path) for path in found(*arguments)]
    assert sorted(names) == sorted(VISIBLE)


def test_a_hidden_file_in_a_given_folder_can_be_named(tree):
    assert found("data", "data/.hidden.json")[-1] == "data/.hidden.json"


@pytest.mark.parametrize(("glob", "expected"), [
    ("data/*.json", ["data/a.json", "data/b.json"]),
    ("data/*.txt", ["data/notes.txt"]),
    ("data/**/*.json", ["data/a.json", "data/b.json", "data/a/z.json", "data/node_modules/p.json"]),
    ("*/one.json", ["other/one.json"]),
    ("data/a*", ["data/a/deep/x.jsonl", "data/a/z.json", "data/a.json"]),
    ("data/.h*", ["data/.hidden.json"]),
    ("data/[ab].json", ["data/a.json", "data/b.json"]),
    ("./oth[e]r/*", ["./other/one.json"]),
    ("nothing/*.json", []),
])  # fmt: skip
def test_quoted_globs_are_expanded_like_a_shell_would(tree, glob, expected):
    assert found(glob) == expected


def test_absolute_globs(tree):
    assert found(f"{tree}/other/*.json") == [f"{tree}/other/one.json"]


def test_a_file_whose_name_looks_like_a_glob(tree):
    (tree / "data/x[1].json").write_text("1")
    assert found("data/x[1].json") == ["data/x[1].json"]


def test_limit_ends_the_search(tree):
    assert found("data", limit=2) == VISIBLE[:2]


def test_symlinks(tree):
    (tree / "links").mkdir()
    (tree / "links/file.json").symlink_to(tree / "data/b.json")
    (tree / "links/folder").symlink_to(tree / "data/a")
    (tree / "links/dead.json").symlink_to("nowhere")
    (tree / "links/self.json").symlink_to("self.json")
    (tree / "data/a/deep/up").symlink_to(tree / "data/a")
    plain = ["links/dead.json", "links/file.json", "links/self.json"]
    assert found("links") == plain
    assert found("links", follow_symlinks=True) == sorted(
        [*plain, "links/folder/deep/x.jsonl", "links/folder/z.json"]
    )


def test_pipes_and_devices_in_folders_are_passed_over(tree):
    os.mkfifo(tree / "data/pipe.json")
    assert found("data") == VISIBLE


def test_lists(tree, run):
    (tree / "list").write_bytes(b"data/b.json\n\nother\ndata/missing.json\n")
    assert list(Inputs(files_from="list").find()) == [
        "data/b.json", "other/one.json", "data/missing.json",
    ]  # fmt: skip
    outcome = run("--files-from", "-", "-0", "-o", "json", stdin=b"data/b.json\0other/one.json")
    assert outcome.json["files"]["succeeded"] == 2


def test_lists_of_other_systems(tree, run):
    (tree / "list").write_bytes(b"\xef\xbb\xbfdata/b.json\r\n\r\nother\r\n\r\ndata/a.json")
    names = ["data/b.json", "other/one.json", "data/a.json"]
    assert list(Inputs(files_from="list").find()) == names
    stdin = (tree / "list").read_bytes()
    events = run("--files-from", "-", "-o", "jsonl", stdin=stdin).events
    assert [(event["file"], event["status"]) for event in events] == [
        (name, "success") for name in names
    ]


def test_names_that_end_with_a_carriage_return_keep_it(tree):
    (tree / "odd.json\r").write_text("1")
    (tree / "\ufeffodd.json").write_text("1")
    (tree / "list").write_bytes("\ufeffodd.json\nodd.json\r\nother/one.json\r\n".encode())
    assert list(Inputs(files_from="list").find()) == [
        "\ufeffodd.json", "odd.json\r", "other/one.json",
    ]  # fmt: skip


def test_a_list_for_null_is_taken_as_it_is(tree):
    (tree / "list").write_bytes(b"data/b.json\r\0data/a.json\0data/b.json\r\0")
    assert list(Inputs(files_from="list", null=True).find()) == ["data/b.json\r", "data/a.json"]


def test_a_file_that_a_list_names_twice_counts_once(tree, run):
    twice = ["data/b.json", "./data/b.json", "other", "other/one.json", "data/b.json", "data/../x"]
    (tree / "list").write_text("\n".join([*twice, "x", f"{tree}/data/b.json"]))
    found = list(Inputs(files_from="list").find())
    assert found == ["data/b.json", "other/one.json", "data/../x"]
    (tree / "data/b.json").write_text('{"n": 1}')
    target = ("--to", "sqlite:///out.db", "--table", "t")
    assert run("--files-from", "list", *target, "-o", "json").json["records"]["written"] == 1
    with closing(sqlite3.connect(tree / "out.db")) as base:
        assert base.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_endings_of_any_case_are_found(files, run):
    contents = {
        "d/A.JSON": b"[1, 2]",
        "d/B.JSONL": b"1\n2\n3\n",
        "d/c.NdJson": b"1\n",
        "d/D.JSON.GZ": gzip.compress(b"[1, 2, 3, 4]"),
        "d/F.TXT": b"x",
        "d/.G.JSON": b"x",
    }
    folder = files(contents)
    events = run("d", "-o", "jsonl").events
    found = {event["file"]: event["records"] for event in events}
    assert found == {"d/A.JSON": 2, "d/B.JSONL": 3, "d/D.JSON.GZ": 4, "d/c.NdJson": 1}
    assert [event["file"] for event in run("d", "-p", "*.JSON", "-o", "jsonl").events] == [
        "d/A.JSON"
    ]
    run("d", "--jq", ".", "--to", "out/", "--root", "d")
    outputs = {path.name for path in (folder / "out").iterdir()}
    assert outputs == {"A.JSON", "B.JSONL", "D.JSON.GZ", "c.NdJson"}
    assert json.loads(gzip.decompress((folder / "out/D.JSON.GZ").read_bytes())) == [1, 2, 3, 4]


def test_a_list_made_for_null_is_told(tree, run):
    outcome = run("--files-from", "-", stdin=b"data/b.json\0other/one.json\0")
    assert outcome.code == 2
    assert "--null" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_list_and_a_folder_do_not_meet_twice(tree):
    (tree / "list").write_text("data/b.json\nother/one.json\n")
    assert list(Inputs(("data",), "list").find()) == [*VISIBLE, "other/one.json"]


@pytest.mark.parametrize(("pattern", "path", "fits"), [
    ("a/*.json", "a/b.json", True),
    ("a/*.json", "a/b/c.json", False),
    ("**/c.json", "c.json", True),
    ("**/c.json", "a/b/c.json", True),
    ("a/**/c.json", "a/c.json", True),
    ("/a/b.json", "a/b.json", True),
    ("a/?.json", "a/b.json", True),
    ("a/[!b].json", "a/b.json", False),
    ("a/[!b].json", "a/c.json", True),
    ("a/[.json", "a/[.json", True),
    ("a/b+.json", "a/bb.json", False),
])  # fmt: skip
def test_path_patterns(pattern, path, fits):
    folder, _, name = path.rpartition("/")
    assert Patterns([pattern]).matches(name, f"{folder}/" if folder else "") is fits


ODD_NAMES = [
    b"with space.json",
    b"new\nline.json",
    b"\xff\xfe.json",
    "😀.json".encode(),
    b"-o.json",
]


def test_odd_names_are_processed_and_shown_safely(tmp_path, run):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    for name in ODD_NAMES:
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(b"[1,]")
    outcome = run("odd", "-o", "json")
    names = {failure["file"] for failure in outcome.json["failures"]}
    assert names == {
        "odd/with space.json", "odd/new\nline.json", "odd/\\xff\\xfe.json", "odd/😀.json",
        "odd/-o.json",
    }  # fmt: skip
    text = run("odd").stdout
    assert "odd/new\\nline.json:1:4" in text
    assert (
        run(b"odd/\xff\xfe.json", "-o", "json").json["failures"][0]["file"] == "odd/\\xff\\xfe.json"
    )


def test_a_terminal_escape_in_a_name_is_not_passed_on(files, run):
    files({"\x1b[31mred\x07.json": "x"})
    assert "\x1b" not in run(".").stdout
