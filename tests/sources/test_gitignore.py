"""`--gitignore` leaves out the files that git itself ignores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import Selection

NAMES = ("a", "b", "ab", "a.b", "[a]", "a b", "é", "!a", "-", "\\")
FOLDERS = ("", "d/", "d/e/", "d/e/f/", "g/")


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run git without the settings of its user."""
    plain = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], input=stdin, cwd=folder, env=plain, check=False, capture_output=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def kept_by_git(folder: Path) -> set[bytes]:
    """Return the files that `git add .` would take."""
    listed = git(folder, "ls-files", "-z", "--others", "--exclude-standard")
    return {name for name in listed.split(b"\0") if name and not name.endswith(b".gitignore")}


def kept_by_us(folder: Path, *below: str) -> set[bytes]:
    """Return the files that a search finds."""
    selection = Selection(("*",), hidden=True, gitignore=True)
    paths = tuple(str(folder / one) for one in below) or (str(folder),)
    found = Inputs(paths, selection=selection).find()
    names = {os.fsencode(os.path.relpath(path, folder)) for path in found}
    return {name for name in names if not name.endswith(b".gitignore")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A repository with every name in every folder."""
    folder = tmp_path_factory.mktemp("tree")
    git(folder, "init", "-q")
    for place in FOLDERS:
        (folder / place).mkdir(exist_ok=True)
        for name in NAMES:
            (folder / place / name).write_text("1")
    return folder


def check(tree: Path, files: dict[str, bytes]) -> None:
    for place in FOLDERS:
        ignore = tree / place / ".gitignore"
        ignore.unlink(missing_ok=True)
        if place in files:
            ignore.write_bytes(files[place])
    assert kept_by_us(tree) == kept_by_git(tree), files


@pytest.mark.parametrize(
    "lines",
    [
        b"a", b"/a", b"d/", b"d", b"d/*", b"d/**", b"**/e", b"d/**/a", b"**/f/*", b"/**", b"**",
        b"*", b"*\n!*/\n!a", b"*\n!d", b"d\n!d/a", b"d/*\n!d/e\nd/e/*\n!d/e/b", b"!a", b"a\n!a\na",
        b"# a", b"\\#", b"\\!a", b"a\\ b", b"a b  ", b"a b\\  ", b"?", b"a?b", b"[ab]", b"[!a]",
        b"[^a]", b"[]a]", b"[a", b"[[]a]", b"\\[a\\]", b"[[:alpha:]]", b"[[:nope:]]a", b"[a-b]b",
        b"[b-a]", b"[!b-a]", b"[]-b]", b"[--0]", b"a/", b"d/a", b"/d/e/", b"\\",
        b"a\\", b"\\\\", b"a\r\nb\r\n", b"\xef\xbb\xbfa\nb", b"***/a", b"d/***/a", b"d/**a", b"*.b",
        b"d//", b"//a", b"d/e/../a", b"./a", b"d/e", b"e/", b"e/a", b"\xc3\xa9", b"\xc3?",
        b"[[:alpha:]-b]b", b"[\\]]", b"[\\\\]", b"[a-\\b]", b" ", b"!", b"/", b"**/", b"/**/",
        b"a**",
    ],
)  # fmt: skip
def test_patterns_mean_the_same_as_for_git(tree, lines):
    check(tree, {"": lines})


PARTS = st.sampled_from(["a", "b", "*", "**", "?", "/", "d", "e", "!", "[ab]", "[!a]", "\\", ".b"])
LINES = st.lists(st.lists(PARTS, min_size=1, max_size=5).map("".join), min_size=1, max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FOLDERS[:4]), LINES, min_size=1, max_size=3))
def test_any_rules_in_any_folders_mean_the_same_as_for_git(tree, files):
    check(tree, {place: "\n".join(lines).encode() for place, lines in files.items()})


def test_rules_of_the_folders_above_and_of_the_clone_hold_too(tree):
    check(tree, {"": b"b\n", "d/": b"!b\n"})
    (tree / ".git/info").mkdir(exist_ok=True)
    (tree / ".git/info/exclude").write_text("ab\n")
    try:
        expected = kept_by_git(tree)
        assert kept_by_us(tree) == expected
        assert kept_by_us(tree, "d", "g") == {
            name for name in expected if name.startswith((b"d/", b"g/"))
        }
    finally:
        (tree / ".git/info/exclude").unlink()


def test_a_run_leaves_out_what_is_ignored_unless_it_is_named(run, files):
    folder = files({
        "in/.gitignore": "build/\n*.tmp.json\n", "in/a.json": "1", "in/b.tmp.json": "2",
        "in/build/c.json": "3", "in/d/build/d.json": "4", "in/d/e.json": "5",
    })  # fmt: skip

    def seen(*arguments):
        outcome = run(*arguments, "--jq", ".", "--to", "o.jsonl")
        assert outcome.code == 0, outcome.stderr
        return (folder / "o.jsonl").read_text().split()

    assert seen("in") == ["1", "2", "3", "4", "5"]
    assert seen("in", "--gitignore") == ["1", "5"], "also without a repository"
    assert seen("in/**/*.json", "--gitignore") == ["1", "5"]
    assert seen("in/b.tmp.json", "in/build", "--gitignore") == ["2", "3"], "these are named"


def test_rules_that_cannot_be_read_are_told(run, files):
    folder = files({"in/a.json": "1"})
    (folder / "in/.gitignore").symlink_to(".gitignore")
    outcome = run("in", "--gitignore")
    assert outcome.code == 2
    assert "--gitignore: cannot read " in outcome.stderr
    assert "in/.gitignore" in outcome.stderr
