"""Findings for code reviews: SARIF and GitLab's code quality report."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import unquote

import jsonschema_rs
import pytest

from asyncbatch import __version__
from tests.commands import run_command

MIXED = {
    "in/good.json": '{"n": 1}',
    "in/bad.json": '{"n": 1,\n "ü": [1,]}',
    "in/lines.jsonl": '{"n": 1}\nx\n{"n": 3}\n{"n": }\n',
    "in/empty.json": "",
}
SCHEMA = """{
  "type": "object",
  "required": ["id"],
  "properties": {"n": {"type": "integer", "maximum": 5}, "name": {"type": "string"}}
}"""


def closed(required, **properties):
    """Return a schema of an object that has no other properties."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
UTC = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
MESSAGE = closed("text", text=TEXT)
HELP = closed("text", text=TEXT, markdown=TEXT)
# The parts of SARIF that we write, as section 3 of the specification has them.
SARIF = closed(
    "version runs $schema",
    **{"$schema": {"const": "https://json.schemastore.org/sarif-2.1.0.json"}},
    version={"const": "2.1.0"},
    runs={
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": closed(
            "tool results columnKind invocations",
            tool=closed(
                "driver",
                driver=closed(
                    "name",
                    name=TEXT,
                    version=TEXT,
                    rules={
                        "type": "array",
                        "uniqueItems": True,
                        "items": closed("id", id=TEXT, shortDescription=MESSAGE, help=HELP),
                    },
                ),
            ),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            automationDetails=closed("", id=TEXT),
            invocations={
                "type": "array",
                "items": closed(
                    "executionSuccessful",
                    executionSuccessful={"type": "boolean"},
                    exitCode={"type": "integer"},
                    startTimeUtc=UTC,
                    endTimeUtc=UTC,
                    toolExecutionNotifications={
                        "type": "array",
                        "items": closed("message", message=MESSAGE, level=LEVEL),
                    },
                ),
            },
            results={
                "type": "array",
                "items": closed(
                    "message",
                    ruleId=TEXT,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=MESSAGE,
                    locations={
                        "type": "array",
                        "items": closed(
                            "",
                            physicalLocation=closed(
                                "artifactLocation",
                                artifactLocation=closed("uri", uri=TEXT, uriBaseId=TEXT),
                                region=closed("startLine", startLine=COUNT, startColumn=COUNT),
                            ),
                            logicalLocations={
                                "type": "array",
                                "items": closed(
                                    "", fullyQualifiedName={"type": "string"}, kind=TEXT
                                ),
                            },
                        ),
                    },
                    partialFingerprints={"type": "object", "additionalProperties": TEXT},
                ),
            },
        ),
    },
)
GITLAB = {
    "type": "array",
    "items": closed(
        "check_name description fingerprint severity location",
        check_name=TEXT,
        description=TEXT,
        fingerprint=TEXT,
        severity={"enum": ["info", "minor", "major", "critical", "blocker"]},
        location=closed("path lines", path=TEXT, lines=closed("begin", begin=COUNT)),
    ),
}
is_sarif, is_gitlab = (jsonschema_rs.validator_for(one).validate for one in (SARIF, GITLAB))


def sarif_run(data):
    """Return the only run of a valid document."""
    document = json.loads(data)
    is_sarif(document)
    [found] = document["runs"]
    rules = [rule["id"] for rule in found["tool"]["driver"]["rules"]]
    for result in found["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    prints = [one["partialFingerprints"]["failure/v1"] for one in found["results"]]
    assert len(set(prints)) == len(prints)
    return found


def entries(data):
    found = json.loads(data)
    is_gitlab(found)
    assert len({one["fingerprint"] for one in found}) == len(found)
    return found


def file_of(result):
    [location] = result["locations"]
    artifact = location["physicalLocation"]["artifactLocation"]
    assert ("uriBaseId" in artifact) == (":" not in artifact["uri"])
    return unquote(artifact["uri"])


def region(result):
    return result["locations"][0]["physicalLocation"]["region"]


def test_each_failure_of_the_report_is_a_finding(run, files):
    folder = files(MIXED)
    outcome = run("in", "-o", "json", "--report", "r.sarif", "--report", "q.gitlab.json")
    assert outcome.code == 1
    failures = outcome.json["failures"]
    found = sarif_run((folder / "r.sarif").read_bytes())
    assert [
        (file_of(one), one["ruleId"], one["message"]["text"], region(one))
        for one in found["results"]
    ] == [
        (
            one["file"], one["kind"], one["message"],
            {"startLine": one["line"], "startColumn": one["column"]} if one["line"]
            else {"startLine": 1},
        )
        for one in failures
    ]  # fmt: skip
    assert {one["line"] for one in failures} == {None, 2, 4}
    [invocation] = found["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (True, 1)
    assert found["tool"]["driver"]["version"] == __version__
    assert [
        (one["location"]["path"], one["check_name"], one["description"],
         one["location"]["lines"]["begin"])
        for one in entries((folder / "q.gitlab.json").read_bytes())
    ] == [
        (one["file"], f"asyncbatch/{one['kind']}", one["message"], one["line"] or 1)
        for one in failures
    ]  # fmt: skip


@pytest.mark.parametrize(("form", "check"), [("sarif", sarif_run), ("gitlab", entries)])
def test_the_document_alone_is_on_stdout(run, files, form, check):
    files(MIXED)
    outcome = run("in", "-o", form)
    assert outcome.code == 1
    assert check(outcome.stdout)


def test_each_violation_of_a_schema_is_a_finding_with_its_rule_and_place(run, files):
    folder = files({
        "in/a.json": '{"n": 9,\n  "name": [1]}', "in/b.json": '{"id": 1, "n": 1}', "s.json": SCHEMA,
    })  # fmt: skip
    outcome = run(
        "in", "--schema", "s.json", "--report", "r.sarif", "--report", "q.gitlab.json", "-o", "json"
    )
    assert outcome.json["records"]["rejected"] == 1
    results = sarif_run((folder / "r.sarif").read_bytes())["results"]
    assert {
        one["ruleId"]: (
            one["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], region(one)
        )
        for one in results
    } == {
        "schema/maximum": ("/n", {"startLine": 1, "startColumn": 7}),
        "schema/required": ("", {"startLine": 1, "startColumn": 1}),
        "schema/type": ("/name", {"startLine": 2, "startColumn": 11}),
    }  # fmt: skip
    found = entries((folder / "q.gitlab.json").read_bytes())
    assert sorted((one["check_name"], one["location"]["lines"]["begin"]) for one in found) == [
        ("asyncbatch/schema/maximum", 1),
        ("asyncbatch/schema/required", 1),
        ("asyncbatch/schema/type", 2),
    ]


def test_a_finding_that_moves_stays_the_same_one(run, files):
    def prints():
        results = sarif_run(run("in", "-o", "sarif").stdout)["results"]
        return [(one["partialFingerprints"]["failure/v1"], region(one)) for one in results]

    files({"in/a.jsonl": "1\nx\n2\nx\n"})
    (first, _), (second, place) = prints()
    assert place == {"startLine": 4, "startColumn": 1}
    files({"in/a.jsonl": "1\n\n\nx\n2\nx\n"})
    assert [one for one, _ in prints()] == [first, second]
    assert prints()[1][1] == {"startLine": 6, "startColumn": 1}


def test_names_of_files_become_uris(run, files, tmp_path):
    names = ["a b.json", "ü#?.json", "100%.json", "[x](y).json", os.fsdecode(b"\xff.json")]
    files(dict.fromkeys(names, "x"))
    results = sarif_run(run(".", str(tmp_path / "a b.json"), "-o", "sarif").stdout)["results"]
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"] for one in results]
    assert all(re.fullmatch(r"[\w/.%~-]+(://)?[\w/.%~-]*", one["uri"]) for one in uris)
    relative = {unquote(one["uri"], errors="surrogateescape") for one in uris if "uriBaseId" in one}
    assert relative == set(names)
    run(os.fsdecode(b"\xff.json"), "--jq", "error", "--report", "r.sarif")
    [result] = sarif_run((tmp_path / "r.sarif").read_bytes())["results"]
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": "%FF.json", "uriBaseId": "%SRCROOT%"}
    files({"b.json": "x"})
    [result] = sarif_run(run(str(tmp_path / "b.json"), "-o", "sarif").stdout)["results"]
    assert file_of(result) == f"file://{tmp_path}/b.json"


def test_texts_of_the_data_make_no_links_and_no_commands(run, files):
    files({"fn.py": "def f(r):\n    raise ValueError(r['m'])\n"})
    text = "[click](https://evil.example)\n::error::x\x1b[2J"
    files({"in/a.json": json.dumps({"m": text})})
    stdout = run("in", "--call", "fn.py:f", "-o", "sarif").stdout
    [result] = sarif_run(stdout)["results"]
    shown = result["message"]["text"]
    assert "[click] (https://evil.example)" in shown
    assert "\n" not in shown
    assert "\x1b" not in stdout
    assert not any(line.startswith("::") for line in stdout.splitlines())


def test_more_findings_than_a_run_may_have_are_counted(run, files):
    folder = files({"in/a.jsonl": "x\n" * 25_002})
    reports = ("r.sarif", "q.gitlab.json", "r.json")
    run("in", "-q", *(word for name in reports for word in ("--report", name)))
    found = sarif_run((folder / "r.sarif").read_bytes())
    assert len(found["results"]) == 25_000
    assert region(found["results"][-1])["startLine"] == 25_000
    [note] = found["invocations"][0]["toolExecutionNotifications"]
    assert note == {"level": "note", "message": {"text": "2 more failures not listed"}}
    *listed, last = entries((folder / "q.gitlab.json").read_bytes())
    assert len(listed) == 25_000
    assert (last["description"], last["severity"]) == ("2 more failures not listed", "info")
    report = json.loads((folder / "r.json").read_bytes())
    assert (len(report["failures"]), report["failures_omitted"]) == (1_000, 24_002)


def test_a_run_that_cannot_begin_replaces_what_was_good(run, files):
    folder = files({"in/a.json": "1", "other.sarif": "[]", "other.gitlab.json": "[]\n"})
    reports = ("--report", "r.sarif", "--report", "q.gitlab.json")
    assert run("in", *reports).code == 0
    assert sarif_run((folder / "r.sarif").read_bytes())["results"] == []
    assert entries((folder / "q.gitlab.json").read_bytes()) == []
    others = ("--report", "other.sarif", "--report", "other.gitlab.json")
    assert run("nowhere/*.json", *reports, *others).code == 2
    found = sarif_run((folder / "r.sarif").read_bytes())
    [invocation] = found["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 2)
    [reason] = invocation["toolExecutionNotifications"]
    assert reason["level"] == "error"
    assert "nowhere" in reason["message"]["text"]
    [entry] = entries((folder / "q.gitlab.json").read_bytes())
    assert (entry["severity"], entry["description"]) == ("blocker", reason["message"]["text"])
    # Files that are no reports stay.
    assert (folder / "other.sarif").read_text() == "[]"
    assert (folder / "other.gitlab.json").read_text() == "[]\n"


@pytest.mark.parametrize("name", ["r.txt", "r.htm", "r.sarif.gz", "r.JSON"])
def test_an_unknown_ending_is_refused(run, files, name):
    folder = files({"in/a.json": "1"})
    outcome = run("in", "--report", name)
    assert outcome.code == 2
    assert f"--report {name}: unknown ending {os.path.splitext(name)[1]}" in outcome.stderr
    assert ".gitlab.json, .html, .json, .jsonl, .md, .prom, .sarif, .xml" in outcome.stderr
    assert not (folder / name).exists()


def test_a_file_without_an_ending_has_the_json_object(run, files):
    folder = files({"in/a.json": "1"})
    assert run("in", "--report", "report").code == 0
    assert json.loads((folder / "report").read_bytes())["files"]["total"] == 1


@pytest.mark.parametrize("name", ["r.sarif", "q.gitlab.json", "r.xml"])
def test_a_stream_has_no_files_to_be_findings(stream, files, name):
    files({"e.jsonl": '{"timestamp": 1}'})
    code, _, stderr = stream("e.jsonl", "--report", name)
    assert code == 2
    assert f"--report {name}: a stream has no files" in stderr


def test_merged_reports_have_the_findings_of_all(run, files, tmp_path):
    files({"a/x.json": "x", "b/y.json": "y"})
    for name in ("a", "b"):
        run(name, "--report", f"{name}.json")
    done = run_command(
        "merge-reports", "a.json", "b.json", "-o", "sarif", "--report", "q.gitlab.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert list(map(file_of, sarif_run(done.stdout)["results"])) == ["a/x.json", "b/y.json"]
    assert len(entries((tmp_path / "q.gitlab.json").read_bytes())) == 2
