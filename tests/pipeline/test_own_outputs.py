"""Outputs of earlier runs that lie in the input folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile

import pytest

from tests.commands import PATIENCE, CommandProcess, environment

OUTPUTS = ("--to", "all.jsonl", "--report", "r.json", "--report", "events.jsonl",
           "--dead-letter", "bad.jsonl")  # fmt: skip


@pytest.fixture
def nightly(files):
    """A folder of inputs, one of them with a bad line."""
    return files({"a.json": '{"n": 1}', "b.jsonl": '{"n": 2}\nx\n'})


@pytest.mark.parametrize("argument", [".", "./*.json*", "sub/.."])
def test_each_night_reads_the_same_inputs(run, nightly, argument):
    (nightly / "sub").mkdir()
    for night in range(3):
        (nightly / f"new{night}.json").write_text(json.dumps({"n": 10 + night}))
        report = run(argument, *OUTPUTS, "-o", "json").json
        assert report["files"]["total"] == 3 + night
        rows = [json.loads(line)["n"] for line in (nightly / "all.jsonl").read_text().splitlines()]
        assert rows == [1, 2, *range(10, 11 + night)]
        [letter] = map(json.loads, (nightly / "bad.jsonl").read_text().splitlines())
        assert letter["file"].endswith("b.jsonl")
    outcome = run(argument, *OUTPUTS)
    [told] = [
        line
        for line in (outcome.stdout + outcome.stderr).splitlines()
        if line.startswith("not read, because earlier runs of this command wrote them: ")
    ]
    for name in ("all.jsonl", "bad.jsonl", "r.json", "events.jsonl"):
        assert told.count(name) == 1


def test_resumed_runs_leave_them_out_too(run, nightly):
    (nightly / "b.jsonl").unlink()
    for night in range(3):
        (nightly / f"new{night}.json").write_text(json.dumps({"n": 10 + night}))
        report = run(".", *OUTPUTS, "--resume", "-o", "json").json
        assert report["files"]["total"] - report["files"]["skipped"] == (1 if night else 2)
        rows = [json.loads(line)["n"] for line in (nightly / "all.jsonl").read_text().splitlines()]
        assert rows == [1, *range(10, 11 + night)]


def test_a_list_may_hold_them(run, nightly):
    run(".", *OUTPUTS)
    (nightly / "list").write_text("a.json\nall.jsonl\nr.json\n")
    report = run("--files-from", "list", *OUTPUTS, "-o", "json").json
    assert (report["files"]["total"], report["exit_code"]) == (1, 0)


def test_a_quiet_run_stays_quiet(run, nightly):
    (nightly / "b.jsonl").unlink()
    for _ in range(2):
        outcome = run(".", *OUTPUTS, "-q")
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


@pytest.mark.parametrize("change", ["append", "replace", "copy"])
def test_a_file_that_others_have_written_is_never_overwritten(run, nightly, change):
    run(".", "--to", "all.jsonl")
    path = nightly / "all.jsonl"
    if change == "append":
        path.write_text(path.read_text() + '{"n": 99}\n')
    elif change == "replace":
        path.unlink()
        path.write_text('{"n": 99}\n')
    else:
        shutil.copy(path, nightly / "copy.jsonl")
        path.unlink()
        (nightly / "copy.jsonl").rename(path)
    before = path.read_bytes()
    outcome = run(".", "--to", "all.jsonl")
    assert outcome.code == 2
    assert "all.jsonl is an input: it cannot be written to" in outcome.stderr
    assert "--exclude" in outcome.stderr
    assert path.read_bytes() == before
    assert run(".", "--to", "all.jsonl", "--exclude", "all.jsonl", "--max-failures", "1").code == 0


@pytest.mark.parametrize("option", ["--report", "--dead-letter"])
def test_a_users_own_file_is_no_report_and_no_dead_letter(run, nightly, option):
    outcome = run(".", option, "a.json")
    assert outcome.code == 2
    assert (nightly / "a.json").read_text() == '{"n": 1}'


def test_a_named_output_is_refused(run, nightly):
    run(".", "--to", "all.jsonl")
    outcome = run("all.jsonl", "--to", "all.jsonl")
    assert outcome.code == 2
    assert "is an input" in outcome.stderr


def test_only_own_outputs_are_no_input_at_all(run, nightly):
    run(".", *OUTPUTS)
    (nightly / "a.json").unlink()
    (nightly / "b.jsonl").unlink()
    outcome = run(".", *OUTPUTS)
    assert outcome.code == 2
    assert "no JSON files" in outcome.stderr


def swept_up(folder):
    """The arguments that a shell makes of *.json*."""
    return sorted(path.name for path in folder.glob("*.json*"))


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_a_glob_of_the_shell_may_sweep_them_up(run, nightly, more):
    for night in range(3):
        (nightly / f"new{night}.json").write_text(json.dumps({"n": 10 + night}))
        report = run(*swept_up(nightly), *OUTPUTS, *more, "-o", "json").json
        assert report["files"]["total"] == 3 + night
        rows = [json.loads(line)["n"] for line in (nightly / "all.jsonl").read_text().splitlines()]
        assert sorted(rows) == [1, 2, *range(10, 11 + night)]
        told = [note for note in report.get("notes", []) if "earlier runs of this command" in note]
        assert len(told) == (1 if night else 0)


@pytest.mark.parametrize("option", ["--to", "--dead-letter"])
def test_an_output_is_not_left_out_without_the_inputs_that_made_it(run, nightly, option):
    run("a.json", "b.jsonl", option, "out.jsonl")
    before = (nightly / "out.jsonl").read_bytes()
    (nightly / "more.json").write_text('{"n": 3}')
    outcome = run("out.jsonl", "more.json", option, "out.jsonl")  # which would lose its records
    assert outcome.code == 2
    assert "out.jsonl is an input: it cannot be written to" in outcome.stderr
    assert (nightly / "out.jsonl").read_bytes() == before


def link(path, target, kind):
    """Make a link of a kind to a file beside it, or below another folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "hard":
        os.link(target, path)
    else:
        path.symlink_to(os.path.relpath(target, path.parent))


# Each is an input that is the file real.jsonl by another name.
LINKED = {
    "a file": (["in/link.jsonl"], None),
    "a folder": (["in"], None),
    "a glob": (["in/*.jsonl"], None),
    "a list": (["--files-from", "list"], None),
    "a list that is read once": (["--files-from", "-"], b"in/link.jsonl"),
    "a limit": (["in", "--limit", "5"], None),
}


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
@pytest.mark.parametrize("case", LINKED)
def test_a_link_is_the_file_that_it_leads_to(run, files, kind, case):
    folder = files({"real.jsonl": '{"n": 1}\n', "list": "in/link.jsonl"})
    link(folder / "in/link.jsonl", folder / "real.jsonl", kind)
    arguments, stdin = LINKED[case]
    for option in ("--to", "--dead-letter", "--report"):
        outcome = run(*arguments, "--jq", "empty", option, "real.jsonl", stdin=stdin)
        assert outcome.code == 2, (option, outcome.stderr)
        assert "in/link.jsonl is an input: it cannot be written to" in outcome.stderr
        assert "real.jsonl is the same file" in outcome.stderr
        assert (folder / "real.jsonl").read_text() == '{"n": 1}\n'


def test_a_link_to_an_output_of_an_earlier_run_is_no_input(run, nightly):
    link(nightly / "link.jsonl", nightly / "all.jsonl", "symbolic")
    for night in range(2):
        outcome = run(".", "--to", "all.jsonl", "--ledger", "ledger.json", "-o", "json")
        assert outcome.json["files"]["failed"] == 1 - night  # at first, the link leads nowhere
        assert (nightly / "all.jsonl").read_text() == '{"n":1}\n{"n":2}\n'


def test_two_outputs_may_have_one_name_in_two_folders(run, files):
    folder = files({"a/x.jsonl": "{}", "b/y.jsonl": "{}"})
    outcome = run("a", "--to", "a/x.jsonl", "--dead-letter", "b/x.jsonl")
    assert outcome.code == 2
    assert "a/x.jsonl is an input" in outcome.stderr
    assert (folder / "a/x.jsonl").read_text() == "{}"


MIRRORED = ({"src/a.json": "dst/src/a.json"}, {"src/c.json": "dst/src/b.json"})


@pytest.mark.parametrize("links", MIRRORED)
@pytest.mark.parametrize("inputs", [["src"], ["src/*"], ["--files-from", "list"]])
def test_an_input_that_leads_into_the_target_folder_is_kept(run, files, links, inputs):
    (name, target), *_ = links.items()
    folder = files({"src/b.json": '{"n": 2}', target: '{"n": 1}', "list": f"src/b.json\n{name}"})
    link(folder / name, folder / target, "symbolic")
    outcome = run(*inputs, "--to", "dst/", "--jq", ".n=99")
    assert outcome.code == 2
    by = "its own output" if name == "src/a.json" else "the output of src/b.json"
    assert f"would be overwritten by {by}" in outcome.stderr
    assert (folder / target).read_text() == '{"n": 1}'


def test_an_input_in_the_target_folder_is_kept(run, files):
    folder = files({"src/a.json": '{"n": 2}', "dst/src/a.json": '{"n": 1}'})
    outcome = run("src", "dst/src", "--to", "dst/")
    assert outcome.code == 2
    assert "would be overwritten by the output of src/a.json" in outcome.stderr
    assert (folder / "dst/src/a.json").read_text() == '{"n": 1}'
    # Here no output has the name of an input.
    assert run("src", "--root", "src", "--to", ".").code == 0
    assert (folder / "a.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [["x.zip/a.json"], ["x.zip"], ["in", "-p", "*.zip"], ["in/*.zip"], ["y.zip/a.json"]],
)
def test_an_archive_is_an_input_if_its_members_are(run, tmp_path, arguments):
    path = tmp_path / "in" / "x.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", "{}")
    before = path.read_bytes()
    for name in ("x.zip", "y.zip"):
        link(tmp_path / name, path, "symbolic")
    outcome = run(*arguments, "--dead-letter", "in/x.zip")
    assert outcome.code == 2
    assert "x.zip is an input" in outcome.stderr.replace("y.zip", "x.zip")
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("inputs", [["."], ["a.json", "b.jsonl", "out.jsonl"]])
def test_what_is_printed_into_an_input_folder_is_not_read(nightly, mode, inputs):
    (nightly / "out.jsonl").write_text('{"n": 3}\n')
    for _ in range(2):
        before = (nightly / "out.jsonl").read_text() if mode == "ab" else ""
        with (nightly / "out.jsonl").open(mode) as printed:
            command = ["run", *inputs, "-q", "--to", "-", "--max-failures", "1"]
            process = CommandProcess(command, cwd=nightly, env=environment(), stdout=printed)
            assert process.wait(PATIENCE) == 0
        assert (nightly / "out.jsonl").read_text() == before + '{"n":1}\n{"n":2}\n'


@pytest.mark.parametrize("command", [("run",), ("stream", "--time", "arrival", "-q")])
def test_a_file_that_is_printed_into_is_no_input(nightly, command):
    with (nightly / "b.jsonl").open("ab") as printed:
        process = CommandProcess(
            [*command, "b.jsonl"],
            cwd=nightly, env=environment(), stdout=printed, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.wait(PATIENCE) == 2
    assert (nightly / "b.jsonl").read_text() == '{"n": 2}\nx\n'


def test_a_report_for_gitlab_is_no_input(run, nightly):
    for _ in range(2):
        assert run(".", "--report", "r.gitlab.json", "-o", "json").json["files"]["total"] == 2
