"""Names, keys, values and messages of strangers: no output takes them for commands or markup."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET

import pytest

from tests.commands import run_command

ODD = "\x1b[2J\x07\n::error::x\n<script>alert(1)</script>|`\u202e\x9b31m]]>"
NAMES = [
    "a\x1b[2Jb.json", "n\nl::error file=x::y.json", "<script>.json", "p|`x`.json", "%0A.json",
    "##[error]z.json",
    "rtl\u202e.json", "c1\x9b31m.json", "n\n::error::x.json", "r\r::error::x.json",
]  # fmt: skip
REPORTS = ("json", "jsonl", "xml", "md", "prom")


@pytest.fixture
def folder(files):
    files({f"in/{name}": '{"x":' for name in NAMES})
    return files({
        "in/v.jsonl": json.dumps({ODD: 1, "k": ODD}) + "\n" + ODD.replace("\n", " ") + "\n",
        "s.json": json.dumps({"properties": {ODD: {"type": "string"}, "k": {"enum": ["a"]}}}),
        "fn.py": f"def fails(record):\n    raise ValueError({ODD!r})\n",
    })  # fmt: skip


def control_characters(text):
    return {char for char in text if (ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160}


def commands(text):
    """Return the lines that GitHub's runner takes for commands."""
    return [line for line in text.split("\n") if line.lstrip().startswith("::") or "##[" in line]


def execute(folder, *arguments):
    """Run any command; return its exit status, stdout and stderr, decoded strictly."""
    finished = run_command(*arguments, cwd=folder)
    return finished.returncode, finished.stdout.decode(), finished.stderr.decode()


HOW = [("--schema", "s.json"), ("--call", "fn.py:fails"), ("--jq", ".k | error")]
CASES = [
    *((output, how) for output in ("text", "json", "jsonl", "junit", "github") for how in HOW),
    *((output, ("--dry-run",)) for output in ("text", "json", "jsonl")),
]


@pytest.mark.parametrize(("output", "how"), CASES)
def test_the_output_has_no_commands_and_no_control_characters(run, folder, output, how):
    outcome = run("in", "-o", output, *how, "-v", "--show-failures", "all")
    assert outcome.code in {0, 1}
    assert control_characters(outcome.stderr) == set()
    assert commands(outcome.stderr) == []
    shown = outcome.stdout
    if output in {"json", "jsonl"}:  # for programs: each line is JSON, and begins with a brace
        assert all(json.loads(line) for line in shown.splitlines() if output == "jsonl")
        assert not any(ord(char) < 32 for char in shown if char != "\n")
        assert commands(shown) == []
    else:
        assert control_characters(shown) == set()
    if output == "github":
        errors = commands(shown)
        assert len(errors) == min(10, len(NAMES) + (1 if "--call" in how or "--jq" in how else 2))
        assert all(line.startswith("::error ") for line in errors)
        assert all("::error::x" not in line.partition("::")[2].split("::")[0] for line in errors)
    if output == "junit":
        assert ET.fromstring(shown).tag == "testsuites"
        assert "<script>" not in shown


def test_reports_have_no_markup_of_strangers(run, folder):
    reports = [word for kind in REPORTS for word in ("--report", f"r.{kind}")]
    outcome = run("in", "--schema", "s.json", "--dead-letter", "d.jsonl", *reports, "-q")
    assert outcome.code == 1
    for kind in ("xml", "md", "prom"):
        text = (folder / f"r.{kind}").read_text()
        assert control_characters(text) == set()
        shown = re.sub(r"(`+)[^`].*?\1", "", text) if kind == "md" else text  # code is no markup
        assert "<script>" not in shown
    ET.parse(folder / "r.xml")
    for name in ("r.json", "r.jsonl", "d.jsonl"):
        lines = (folder / name).read_text().split("\n")
        assert all(json.loads(line) for line in lines if line)
    # The content of the records is kept in any case.
    letters = [json.loads(line) for line in (folder / "d.jsonl").read_text().splitlines()]
    assert {"in/" + name for name in NAMES} <= {letter["file"] for letter in letters}
    assert any(letter.get("data") == {ODD: 1, "k": ODD} for letter in letters)


def test_no_mirrored_output_lies_outside_of_its_folder(run, files, tmp_path):
    folder = files({"work/in/a.json": '{"n": 1}', "other/secret.json": '{"n": 2}'})
    work = folder / "work"
    (work / "out").mkdir()
    (work / "out" / "in").symlink_to(folder / "other")  # below the target, out of it
    for source in ("in", "../other", str(folder / "other"), "in/../../other"):
        before = (folder / "other" / "secret.json").read_bytes()
        run(source, "--to", "out/", "--jq", ".n = 9", "-q", cwd=work)
        assert (folder / "other" / "secret.json").read_bytes() == before
        assert not (folder / "other" / "a.json").exists()
        assert sorted(path.name for path in folder.iterdir()) == ["other", "work"]


OUTSIDE = ["../other/s.json", "{}/other/s.json", "in/../../other/s.json", "link/s.json"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_list_of_files_leads_outside_of_a_mirrored_folder(run, files, name):
    name = name.format(files({"work/in/a.json": "1", "other/s.json": "2"}))
    folder = files({"work/list": f"in/a.json\n{name}\n"})
    (folder / "work" / "link").symlink_to(folder / "other")
    before = {path for path in folder.rglob("*") if "work" not in path.parts}
    outcome = run("--files-from", "list", "--to", "deep/out/", "--jq", ".", cwd=folder / "work")
    assert outcome.code == (2 if ".." in name else 0)  # 0: below a folder of its own in `out`
    assert {path for path in folder.rglob("*") if "work" not in path.parts} == before
    assert (folder / "other" / "s.json").read_text() == "2"


BAD = "\x1b[2J\n::error::x\n\u202e\x9b31m##[add-mask]y\udcff"
USAGE = [
    ("run", BAD), ("run", f"--{BAD}"), ("run", ".", "--to", BAD), ("run", ".", "--jq", BAD),
    ("run", ".", "--output", BAD), ("run", ".", "--to", f"sqlite:///{BAD}"),
    ("run", ".", "--to", f"postgresql://u:p@{BAD}/d", "--table", "t"), ("run", f"s3://{BAD}"),
    ("run", ".", "--to", f"{BAD}.csv", "--dead-letter", f"{BAD}.csv", "--report", "r.json"),
    ("run", ".", "--call", f"{BAD}.py:f"), ("run", ".", "--schema", BAD),
    ("run", ".", "--dedupe", BAD), ("run", f"--lock={BAD}/x", "."),
    ("etl", BAD), ("etl", "p.toml", "--set", BAD), ("etl", "p.toml"),
    ("stream", ".", "--late", BAD), ("stream", ".", "--to", BAD, "--report", "r.json"),
    ("validate", ".", "--schema", BAD), ("init", f"{BAD}/x"), ("merge-reports", BAD),
    ("merge-reports", "a.json", "--report", f"{BAD}.xml"), ("generate", BAD),
    ("generate", "events", "--to", f"{BAD}/x"), ("generate", "events", "--types", BAD),
    ("ledger", "show", BAD), ("ledger", "clear", f"{BAD}.ledger"), (BAD,),
]  # fmt: skip


@pytest.mark.parametrize("arguments", USAGE, ids=range(len(USAGE)))
def test_errors_of_usage_show_their_arguments_escaped(files, arguments):
    folder = files({"a.json": "1", "p.toml": f"name = {json.dumps(BAD[:-1])}\n[[{BAD[:-1]}]]"})
    code, stdout, stderr = execute(folder, *arguments)
    assert (code, stdout) == (2, "")
    assert control_characters(stderr) == set()
    assert commands(stderr) == []
    assert not re.search("[\u202a-\u202e]", stderr)
    assert "Traceback" not in stderr
    if (folder / "r.json").exists():
        assert json.loads((folder / "r.json").read_text())["status"] == "failed"


def test_a_bare_command_prints_its_help(tmp_path):
    code, stdout, stderr = execute(tmp_path, "ledger")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Usage: asyncbatch ledger")
    assert "Error" not in stderr


@pytest.mark.parametrize("output", ["text", "json", "junit", "github"])
def test_names_at_the_beginning_of_a_line_are_no_commands(files, output):
    names = ("::error file=x::y.json", "##[error]z.json")
    folder = files(dict.fromkeys(names, "{"))
    code, stdout, stderr = execute(folder, "run", *names, "-v", "-o", output)
    assert code == 1
    found = commands(stdout + stderr)
    if output == "json":
        assert found == []
        assert {one["file"] for one in json.loads(stdout)["failures"]} == set(names)
    else:
        assert len(found) == (2 if output == "github" else 0)
        assert all(line.startswith("::error file=") for line in found)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("output", ["text", "jsonl", "github"])
def test_a_message_that_is_no_unicode_rejects_its_record_only(run, files, output, workers):
    program = 'def f(record):\n    raise ValueError("\\ud800 \\udcff\\n::error::x")\n'
    folder = files({"a.json": "[1, 2]", "fn.py": program})
    outcome = run(
        "a.json", "--call", "fn.py:f", "-w", workers, "-o", output, "-v", "--dead-letter", "d",
        "--report", "r.json", "--report", "r.md", "--report", "r.xml",
    )  # fmt: skip
    assert outcome.code == 1
    assert "bug" not in outcome.stderr
    assert control_characters(outcome.stderr) == set()
    letters = [json.loads(line) for line in (folder / "d").read_text().splitlines()]
    message = "ValueError: \\ud800 \\udcff\n::error::x"
    assert [letter["message"] for letter in letters] == [message] * 2
    failures = json.loads((folder / "r.json").read_text())["failures"]
    assert [failure["message"] for failure in failures] == [message] * 2


LATIN = os.fsdecode(b"caf\xe9")  # no UTF-8
TARGETS = [f"{LATIN}.csv", f"{LATIN}/", f"{LATIN}.parquet", f"sqlite:///{LATIN}.db"]


@pytest.mark.parametrize("to", TARGETS, ids=ascii)
def test_paths_that_are_not_utf8_are_targets_that_can_be_resumed(files, to):
    folder = files({f"{LATIN}/in/{LATIN}.json": '{"a": 1}'})
    table = ("--table", "t") if "://" in to else ()
    for _ in range(2):
        found = execute(folder, "run", f"{LATIN}/in", "--to", to, *table, "--resume", "-q")
        assert found == (0, "", "")
    code, stdout, _ = execute(folder, "ledger", "show", to, "--files")
    assert (code, stdout.count("success")) == (0, 2)


def test_a_stream_keeps_names_that_are_not_utf8(files):
    event = '{"timestamp": "2026-01-01T00:0%d:00Z"}\n'
    folder = files({f"in/{LATIN}1.jsonl": event % 0 + "nonsense\n"})
    how = ("stream", "in", "--window", "tumbling:1m", "--checkpoint", f"{LATIN}.at", "--to")
    reports = ("--report", "r.json", "--report", f"{LATIN}.prom")
    for number, read in ((0, 1), (2, 2)):
        files({f"in/{LATIN}{number}.jsonl": event % number} if number else {})
        code, _, stderr = execute(folder, *how, f"{LATIN}.csv", *reports, "-q")
        assert (code, stderr) == (0, "")
        report = json.loads((folder / "r.json").read_text())
        assert report["events"]["in_windows"] == read
        assert report["failures"][0]["file"].endswith(r"caf\xe91.jsonl")


FIELDS = ["command", "kind", "failure_kinds", "message", "file", "error", "note", "sink"]


@pytest.mark.parametrize("field", FIELDS)
def test_no_text_of_a_merged_report_is_trusted(run, files, field):
    folder = files({"a.json": "{"})
    assert run("a.json", "--to", "o.csv", "--report", "r.json", "-q").code == 1
    report = json.loads((folder / "r.json").read_text())
    evil = ODD + "![x](http://e.example/x.png) @octocat ##[group]"
    if field in {"kind", "message", "file"}:
        report["failures"][0][field] = evil
    elif field == "failure_kinds":
        report[field] = {evil: 1}
    elif field == "sink":
        report[field] = {"to": evil, "table": evil, "mode": None, "key": [evil], "rejected": 0}
    else:
        report |= {"notes": [evil]} if field == "note" else {field: evil}
    (folder / "r.json").write_text(json.dumps(report))
    outputs = ("--report", "m.md", "--report", "m.prom")
    code, stdout, stderr = execute(folder, "merge-reports", "r.json", *outputs)
    assert code == (2 if field in {"command", "kind", "failure_kinds"} else 1)
    texts = [stdout, stderr]
    texts += [(folder / f"m.{kind}").read_text() for kind in ("md", "prom") if code == 1]
    for text in texts:
        assert control_characters(text) == set()
        assert commands(text) == []
    if code == 1:
        outside_code = re.sub(r"(`+)[^`].*?\1", "", texts[2])
        assert not re.search(r"<script|(?<!\\)\[x|@octocat", outside_code)
