"""Names, keys, values and messages of strangers: no output takes them for commands or markup."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

ODD = "\x1b[2J\x07\n::error::x\n<script>alert(1)</script>|`\u202e\x9b31m]]>"
NAMES = [
    "a\x1b[2Jb.json", "n\nl::error file=x::y.json", "<script>.json", "p|`x`.json", "%0A.json",
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
    return [line for line in text.split("\n") if line.lstrip().startswith(("::", "##["))]


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
