"""Outputs of earlier runs that lie in the input folder."""

from __future__ import annotations

import json
import shutil

import pytest

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
