"""Tests of the report formats JUnit, GitHub, Markdown and Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from xml.etree import ElementTree as ET

import pytest
from junitparser import Failure, JUnitXml, Skipped
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import COMMAND, environment, run_command
from tests.conftest import many

MIXED = {"sub/good.json": "[1, 2]", "sub/bad.json": "[1,]", "lines.jsonl": "1\nx\n3\n"}


def cases(document):
    root = ET.fromstring(document)
    [suite] = root
    for level in (root, suite):
        assert int(level.attrib["tests"]) == len(suite)
        assert int(level.attrib["failures"]) == len(suite.findall("testcase/failure"))
    check_junit(root)
    return {f"{case.get('classname')}/{case.get('name')}": case for case in suite}


# Required and allowed attributes, and allowed children, of the elements in Jenkins' junit-10.xsd.
JUNIT = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp"},
        {"testcase"},
    ),
    "testcase": ({"name"}, {"name", "time", "classname"}, {"failure", "error", "skipped"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
}
JUNIT_TIME = re.compile(r"[0-9]*(\.[0-9]*)?")


def check_junit(element):
    """Check an element and those in it as Jenkins' schema does."""
    required, allowed, children = JUNIT[element.tag]
    assert required <= set(element.attrib) <= allowed
    assert JUNIT_TIME.fullmatch(element.get("time", ""))
    for child in element:
        assert child.tag in children
        check_junit(child)


def test_junit_has_a_case_for_each_file(run, files):
    files(MIXED)
    outcome = run(".", "-o", "junit")
    assert outcome.code == 1
    found = cases(outcome.stdout)
    assert set(found) == {"./sub/good.json", "./sub/bad.json", "./lines.jsonl"}
    good, bad = found["./sub/good.json"], found["./sub/bad.json"]
    assert (good.get("classname"), good.get("name")) == ("./sub", "good.json")
    assert len(good) == 0
    assert bad[0].get("type") == "invalid_json"
    assert bad[0].text == "./sub/bad.json:1:4: trailing comma before ']'"
    assert "./lines.jsonl:2:1: " in found["./lines.jsonl"][0].text


def test_junit_shows_some_bad_records_of_a_file_and_counts_the_rest(run, files):
    files({"lines.jsonl": "x\n" * 3000 + "1\n"})
    [case] = cases(run(".", "-o", "junit").stdout).values()
    shown = case[0].text.splitlines()
    assert len(shown) == 21
    assert shown[-1] == "... and 2,980 more"


def test_junit_shows_files_that_an_earlier_run_has_done_as_skipped(run, files):
    files(MIXED)
    run(".", "--resume", "--ledger", "l")
    found = cases(run(".", "--resume", "--ledger", "l", "-o", "junit").stdout)
    skipped = {name for name, case in found.items() if case.find("skipped") is not None}
    assert "./sub/good.json" in skipped
    assert all(found[name].find("skipped").get("message") for name in skipped)


def test_a_library_reads_junit_as_it_is_meant(run, files):
    files({**MIXED, "a<b>&é.json": "{"})
    run("sub/good.json", "--resume", "--ledger", "l")
    outcome = run(".", "--resume", "--ledger", "l", "-o", "junit")
    found = JUnitXml.fromstring(outcome.stdout.encode())
    states = {
        case.name: type(case.result[0]) if case.result else None
        for suite in found
        for case in suite
    }
    assert states == {
        "bad.json": Failure, "lines.jsonl": Failure, "a<b>&é.json": Failure, "good.json": Skipped
    }  # fmt: skip
    assert (found.tests, found.failures, found.errors) == (4, 3, 0)


def test_junit_of_many_files_is_spooled(run, files):
    files({f"{'x' * 200}{name}": text for name, text in many(12_000).items()})
    assert len(cases(run(".", "-o", "junit").stdout)) == 12_000


@pytest.mark.parametrize("name", ['a"b.json', "a<b>&.json", "a\nb.json", "a\x01b.json", "😀.json"])
def test_odd_names_are_well_formed(run, files, name):
    files({name: "x"})
    [file] = cases(run(".", "-o", "junit").stdout)
    escaped = name.replace("\n", "\\n").replace("\x01", "\\x01")
    assert file == f"./{escaped}"


def test_github_annotates_positions(run, files):
    files(MIXED)
    rejected, failed, summary = run(".", "-o", "github").stdout.splitlines()
    assert rejected == (
        "::error file=./lines.jsonl,title=asyncbatch%3A invalid_json,line=2,col=1"
        "::expected a value, found 'x'"
    )
    assert failed == (
        "::error file=./sub/bad.json,title=asyncbatch%3A invalid_json,line=1,col=4"
        "::trailing comma before ']'"
    )
    assert summary == "asyncbatch run: partial, 3 files, 1 succeeded"


@pytest.mark.parametrize(("failures", "more"), [(10, None), (11, "2 more"), (500, "491 more")])
def test_github_gets_no_more_annotations_than_it_shows(run, files, failures, more):
    files(many(failures, "x"))
    errors = [
        line for line in run(".", "-o", "github").stdout.splitlines() if line.startswith("::error")
    ]
    assert len(errors) == 10
    assert more is None or more in errors[-1]


def test_file_names_cannot_inject_github_commands(run, files):
    files({"a,line=9:%0A\n::error::b.json": "x"})
    [error, summary] = run(".", "-o", "github").stdout.splitlines()
    assert error.startswith("::error file=./a%2Cline=9%3A%250A%0A%3A%3Aerror%3A%3Ab.json,title=")
    assert summary.startswith("asyncbatch run")


def test_github_gets_a_summary_page(run, files):
    folder = files(MIXED)
    page = folder / "page"
    page.write_text("before\n")
    run(".", "-o", "github", env={"GITHUB_STEP_SUMMARY": str(page)})
    text = page.read_text()
    assert text.startswith("before\n### asyncbatch run: partial, 3 files\n")
    assert "| `./sub/bad.json:1:4` | invalid_json | trailing comma before ']' |" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a<b>&.json", "`./a<b>&.json:1:1`"),
        ("a&lt;.json", "`./a&lt;.json:1:1`"),
        ("a|b.json", "`./a\\|b.json:1:1`"),
        ("a`b.json", "``./a`b.json:1:1``"),
        ("a``b`.json", "```./a``b`.json:1:1```"),
        ("a*_b_*.json", "`./a*_b_*.json:1:1`"),
        ("a\\|b.json", "<code>&#46;&#47;a&#92;&#124;b&#46;json&#58;1&#58;1</code>"),
    ],
)
def test_markdown_shows_names_as_they_are(run, files, name, shown):
    folder = files({name: "x"})
    run(".", "-q", "--report", "r.md")
    lines = (folder / "r.md").read_text().splitlines()
    assert f"| {shown} | invalid_json | expected a value, found 'x' |" in lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<b", "a&lt;b"),
        ("a&lt;b", "a&amp;lt;b"),
        ("a|b", "a\\|b"),
        ("a`b`", "a\\`b\\`"),
        ("a\\|b", r"a\\\\\|b"),  # the message shows a JSON text, with two backslashes
        ("a\\nb", r"a\\\nb"),
    ],
)
def test_markdown_shows_messages_as_they_are(run, files, text, shown):
    schema = {"properties": {"v": {"const": text}}}
    folder = files({"s.json": json.dumps(schema), "a.json": '{"v": 1}'})
    run("a.json", "-q", "--schema", "s.json", "--report", "r.md")
    assert shown in (folder / "r.md").read_text().splitlines()[-1]


def test_several_reports_at_once(run, files):
    folder = files(MIXED)
    reports = ("r.json", "r.jsonl", "r.xml", "r.md", "report")
    outcome = run("sub", "lines.jsonl", "-q", *(f"--report={name}" for name in reports))
    assert outcome.code == 1
    whole = json.loads((folder / "r.json").read_text())
    assert whole == json.loads((folder / "report").read_text())
    events = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("file") == 3
    assert events[-1] == {"event": "summary", **whole}
    assert len(cases((folder / "r.xml").read_text())) == 3
    assert "3 files" in (folder / "r.md").read_text()


def test_a_report_to_a_device_is_written_directly(run, files):
    files(MIXED)
    outcome = run(".", "-q", "--report", "/dev/stdout")
    assert outcome.json["files"]["total"] == 3


@pytest.mark.parametrize("options", [("--report", "r.json"), ("-o", "junit"), ("-o", "github")])
def test_a_dry_run_has_no_results(run, files, options):
    files(MIXED)
    assert run(".", "--dry-run", *options).code == 2


def metrics_of(path):
    """Return the samples in a file, read by the parser of Prometheus."""
    families = list(text_string_to_metric_families(path.read_text()))
    assert all(family.documentation for family in families)
    return {
        (sample.name.removeprefix("asyncbatch_run_"), sample.labels.pop("result", None)): sample
        for family in families
        for sample in family.samples
    }


def test_metrics(run, files):
    folder = files({"in/a.json": "[1, 2]", "in/b.jsonl": "1\nx\n3\n", "in/c.json": "oops"})
    outcome = run("in", "-q", "--report", "nightly.prom", "--report", "r.json")
    assert outcome.code == 1
    whole = json.loads((folder / "r.json").read_text())
    found = metrics_of(folder / "nightly.prom")
    assert {sample.labels["name"] for sample in found.values()} == {"nightly"}
    value = {name: sample.value for name, sample in found.items()}
    assert value["exit_code", None] == 1
    assert value["files", "succeeded"] == value["files", "partial"] == value["files", "failed"] == 1
    assert (value["records", "passed"], value["records", "rejected"]) == (4, 1)
    assert value["read_bytes", None] == sum(
        len(path.read_bytes()) for path in (folder / "in").iterdir()
    )
    assert value["duration_seconds", None] == pytest.approx(whole["elapsed_s"], abs=0.001)
    took = value["ended_timestamp_seconds", None] - value["started_timestamp_seconds", None]
    assert took == pytest.approx(value["duration_seconds", None], abs=0.001)
    assert found["info", None].labels == {"name": "nightly", "command": "run", "status": "partial"}


def test_metrics_of_several_runs_together(run, files):
    folder = files({"in/a.json": "[1, 2]", "in/b.json": "[3]"})
    for part in (1, 2):
        run("in", "-q", "--shard", f"{part}/2", "--report", f"{part}.json", "--allow-empty")
    subprocess.run(
        [*COMMAND, "merge-reports", "1.json", "2.json", "-q", "--report", "all.prom"],
        check=True, cwd=folder, env=environment(),
    )  # fmt: skip
    assert metrics_of(folder / "all.prom")["records", "passed"].value == 3


# --- runs that could not begin

REPORTS = ("--report", "r.prom", "--report", "r.json", "--report", "r.xml", "--report", "r.md")


def reported(folder, name="r"):
    """Return the values of the metrics and the report object of a run."""
    return metrics_of(folder / f"{name}.prom"), json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("empty",), "no JSON files in empty"),
        (
            ("in", "--to", "postgresql://nobody@127.0.0.1:1/none", "--table", "t"),
            "Connection refused: is the server running",
        ),
        (("in", "--to", "sqlite:///no/such/folder/x.db", "--table", "t"), "no/such/folder"),
        (("in", "--to", "x.xlsx"), "x.xlsx"),
        (("in", "--jq", ".["), "the jq program does not compile"),
        (("in", "--schema", "none.json"), "none.json"),
    ],
)
def test_a_run_that_cannot_begin_writes_its_reports(run, files, arguments, reason):
    folder = files({"in/a.json": "[1, 2]"})
    (folder / "empty").mkdir()
    assert run("in", "-q", *REPORTS).code == 0
    good, _ = reported(folder)
    outcome = run(*arguments, "-q", *REPORTS)
    assert outcome.code == 2
    values, report = reported(folder)
    assert values["exit_code", None].value == report["exit_code"] == 2
    assert values["info", None].labels["status"] == report["status"] == "failed"
    assert reason in report["error"]
    kept = "last_success_timestamp_seconds", None
    assert values[kept].value == good[kept].value
    assert good[kept].value == pytest.approx(good["ended_timestamp_seconds", None].value, abs=60)
    assert '<error message="' in (folder / "r.xml").read_text()
    assert "Exit status 2." in (folder / "r.md").read_text()
    assert run("in", "-q", *REPORTS).code == 0
    values, report = reported(folder)
    assert (values["exit_code", None].value, report["status"]) == (0, "success")
    assert values[kept].value > good[kept].value
    assert "error" not in report


def test_a_run_that_fails_keeps_the_time_of_the_last_success(run, files):
    folder = files({"in/a.json": "[1, 2]"})
    assert run("in", "-q", *REPORTS).code == 0
    good, _ = reported(folder)
    files({"in/b.json": "x"})
    assert run("in", "-q", *REPORTS).code == 1
    values, _ = reported(folder)
    kept = "last_success_timestamp_seconds", None
    assert (values["exit_code", None].value, values[kept].value) == (1, good[kept].value)
    (folder / "r.prom").unlink()
    assert run("in", "-q", *REPORTS).code == 1
    assert kept not in reported(folder)[0]


@pytest.mark.parametrize("name", ["a.json", "b.jsonl"])
def test_an_input_that_is_named_as_report_stays_as_it_is(run, files, name):
    folder = files({"a.json": "[1, 2]", "b.jsonl": "1\n"})
    before = (folder / name).read_bytes()
    for more in ((), ("--jq", ".["), ("--to", "x.xlsx"), ("--to", name)):
        assert run("a.json", "b.jsonl", "-q", "--report", name, *more).code == 2
        assert (folder / name).read_bytes() == before


def test_a_pipeline_that_cannot_begin_writes_its_reports(files):
    folder = files({"p.toml": "[[source]]\nno = 1\n", "in/a.json": "[1]"})
    good = (
        'name = "p"\n[[source]]\nname = "a"\ntype = "files"\npaths = ["in"]\n'
        '[sink]\nto = "out.jsonl"\n'
    )

    def etl():
        return run_command("etl", "p.toml", "-q", *REPORTS, cwd=folder).returncode  # fmt: skip

    assert etl() == 2
    values, report = reported(folder)
    assert values["exit_code", None].value == report["exit_code"] == 2
    assert report["command"] == "etl"
    (folder / "p.toml").write_text(good)
    assert etl() == 0
    assert reported(folder)[1]["exit_code"] == 0
    (folder / "p.toml").write_text(good.replace("out.jsonl", "no/such/out.jsonl"))
    assert etl() == 2
    values, report = reported(folder)
    assert values["exit_code", None].value == report["exit_code"] == 2
    assert ("last_success_timestamp_seconds", None) in values
