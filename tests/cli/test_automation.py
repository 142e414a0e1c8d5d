"""Tests that the examples of `docs/automation.md` work unchanged."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest
import yaml

from tests.cli.pages import below, blocks, command_path, cron, shell
from tests.commands import PATIENCE, ROOT, CommandProcess, environment
from tests.commands import run_command_text as run_command
from tests.processes import wait_until

PAGE = (ROOT / "docs" / "automation.md").read_text()
UNITS = {
    name: block
    for block in blocks(PAGE, "ini")
    for name in re.findall(r"^# /etc/systemd/system/(\S+)\n", block)
}
CRONTAB, PINGING = blocks(PAGE, "crontab")
LINES = [line for line in CRONTAB.splitlines() if re.match(r"[0-9*]", line)]
PIPELINE = """\
name = "people"
source = [{ type = "files", paths = ["srv/exports/"] }]
sink = { to = "sqlite:///people.db", table = "people", key = ["id"] }
"""
EVENTS = ROOT / "sample_data" / "events" / "2025-03-01.jsonl"
METRICS = "asyncbatch_run_|asyncbatch_stream_"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which the command `asyncbatch` runs this checkout."""
    return command_path(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def root(tmp_path):
    """A folder with the inputs of the examples, and the folders of their outputs."""
    for name in ("var/lib/asyncbatch", "var/log/asyncbatch", "var/log/app", "etc/asyncbatch"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(ROOT / "sample_data" / "users", tmp_path / "srv" / "exports")
    shutil.copytree(ROOT / "sample_data" / "users", tmp_path / "data" / "exports")
    (tmp_path / "etc" / "asyncbatch" / "people.toml").write_text(PIPELINE)
    shutil.copy(EVENTS, tmp_path / "var" / "log" / "app" / "events.jsonl")
    return tmp_path


class Unit(configparser.ConfigParser):
    """A unit of systemd. Its names have capitals."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def rows(database, query):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def unit(name):
    """Return a unit as its sections. systemd joins lines that end with a backslash."""
    parser = Unit(interpolation=None, delimiters="=")
    parser.read_string(UNITS[name].replace("\\\n", ""))
    return parser


def command_of(name, root):
    """Return the command of a unit and its variables, with its absolute paths below `root`."""
    service = unit(name)["Service"]
    program, *words = shlex.split(below(root, service["ExecStart"]))
    assert program == "/usr/local/bin/asyncbatch"
    variable, _, value = service["Environment"].partition("=")
    return words, {variable: f"{root}{value}", "HOME": "/nonexistent"}


def start(name, root, *more):
    """Run the command of a unit to its end."""
    words, env = command_of(name, root)
    return run_command(*words, *more, cwd=root, env=env)


@pytest.mark.parametrize("line", LINES)
def test_lines_of_the_crontab(line, root, path):
    ran = cron(line, root, path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_crontab_has_what_a_careful_operator_gives():
    assert len(LINES) == 4
    variables = dict(line.split("=", 1) for line in CRONTAB.splitlines() if re.match("[A-Z]", line))
    assert set(variables) == {"MAILTO", "PATH"}
    for line in LINES[:3]:
        assert {"-q", "--lock"} < set(line.split())


def test_a_crontab_that_pings(root, path):
    variable, line = PINGING.splitlines()
    assert variable.startswith("ASYNCBATCH_RUN_PING=https://")
    assert cron(line, root, path).returncode == 0


def test_rejected_records_are_kept_by_their_day(root, path):
    (root / "srv" / "exports" / "bad.json").write_text('[{"id": 1}, {"id": 2}]')
    (root / "srv" / "exports" / "worse.json").write_text("[")
    line = LINES[1].replace("5\\%", "50\\%")
    assert cron(line, root, path).returncode == 0
    [kept] = (root / "var" / "lib" / "asyncbatch").glob("rejected-????-??-??.jsonl")
    [letter] = map(json.loads, kept.read_text().splitlines())
    assert letter["file"] == f"{root}/srv/exports/worse.json"


def test_units_parse_and_name_each_other():
    names = {name.rpartition(".")[0] for name in UNITS}
    assert len(UNITS) == len(blocks(PAGE, "ini"))
    services = {"asyncbatch-exports", "asyncbatch-windows", "asyncbatch-inbox"}
    assert names == {*services, "asyncbatch-alert@"}
    for name in (f"{service}.service" for service in services):
        assert unit(name)["Unit"]["OnFailure"] == "asyncbatch-alert@%n.service"
        assert int(unit(name)["Service"]["TimeoutStopSec"]) > 8  # of --grace


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_units(path, tmp_path):
    program = f"{path.partition(':')[0]}/asyncbatch"
    for name, text in UNITS.items():
        text = text.replace("/usr/local/bin/asyncbatch", program)  # noqa: PLW2901 - the same text
        (tmp_path / name).write_text(text.replace("/usr/bin/logger", "/bin/sh"))
    services = [tmp_path / name for name in UNITS if "@" not in name]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *services], check=False, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    ours = [line for line in checked.stderr.splitlines() if "asyncbatch" in line]
    assert (checked.returncode, ours) == (0, [])


def test_the_service_of_the_timer_loads_and_resumes(root):
    state = root / "var" / "lib" / "asyncbatch"
    for succeeded, skipped in ((3, 0), (0, 3)):
        ran = start("asyncbatch-exports.service", root)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        files = json.loads((state / "exports.json").read_text())["files"]
        assert (files["succeeded"], files["skipped"]) == (succeeded, skipped)
    assert rows(state / "users.db", "SELECT count(*) FROM users") == [(36,)]
    assert list((state / "locks").iterdir())  # XDG_STATE_HOME makes StateDirectory hold them


def test_the_service_of_the_stream_counts_and_resumes(root):
    state, log = root / "var" / "lib" / "asyncbatch", root / "var" / "log" / "app" / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    count = 0
    for number, more in ((len(lines), ""), (1, lines[-1])):
        with log.open("a") as file:
            file.write(more)
        count += number
        ran = start("asyncbatch-windows.service", root, "--max-events", str(number))
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert rows(state / "windows.db", "SELECT sum(count) FROM windows") == [(count,)]


def test_the_service_of_the_inbox_loads_what_arrives(root):
    inbox, state = root / "srv" / "inbox", root / "var" / "lib" / "asyncbatch"
    inbox.mkdir()
    words, env = command_of("asyncbatch-inbox.service", root)
    with CommandProcess(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=root, env=environment(**env),
    ) as service:  # fmt: skip
        (inbox / "bad.json").write_text("[")
        wait_until((state / "failed" / "bad.json").exists, running=service)
        assert len((state / "rejected.jsonl").read_text().splitlines()) == 1
        service.terminate()
        output, _ = service.communicate(timeout=PATIENCE)
    assert unit("asyncbatch-inbox.service")["Service"]["SuccessExitStatus"] == "143"
    assert service.returncode == 143
    assert b"bad.json" in output


def test_the_cron_job_of_kubernetes(root):
    [text, *_] = [block for block in blocks(PAGE, "yaml") if block.startswith("apiVersion")]
    job = yaml.safe_load(text)["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [rule, _] = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {one["name"] for one in pod["volumes"]} == {
        one["name"] for one in container["volumeMounts"]
    }
    words = shlex.split(below(root, shlex.join(container["command"])))
    target = f"sqlite:///{root}/warehouse.db"  # test_postgres.py tests the address of a server
    words = [target if "://" in word else word for word in words]
    for succeeded in (3, 0):
        ran = run_command(*words[1:], cwd=root)
        assert (ran.returncode, ran.stderr) == (0, "")
        [line] = ran.stdout.splitlines()
        assert json.loads(line)["files"]["succeeded"] == succeeded
    ran = run_command(*words[1:], "--nothing", cwd=root)
    assert ran.returncode in rule["onExitCodes"]["values"]


def test_rules_of_prometheus_name_metrics(root):
    run_command("run", "srv/exports", "--report", "r.prom", cwd=root)
    run_command("stream", EVENTS, "--report", "s.prom", cwd=root)
    with CommandProcess(
        ["run", "srv/exports", "--watch", "--report", "w.prom", "-q"], cwd=root
    ) as watch:
        wait_until((root / "w.prom").exists, running=watch)
        watch.terminate()
    written = "".join((root / f"{name}.prom").read_text() for name in "rsw")
    [text] = [block for block in blocks(PAGE, "yaml") if block.startswith("groups")]
    [group] = yaml.safe_load(text)["groups"]
    named = [
        name for rule in group["rules"] for name in re.findall(rf"(?:{METRICS})\w+", rule["expr"])
    ]
    assert len(named) == 6
    for name in named:
        assert re.search(rf"^{name}{{name=", written, re.MULTILINE), name


SCRIPTS = [block for block in blocks(PAGE, "sh") if block.startswith("asyncbatch ")]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script, root, path):
    ran = shell(below(root, f" {script}"), path, root)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    appended = root / "var" / "log" / "asyncbatch" / "events.jsonl"
    if appended.exists():
        assert json.loads(appended.read_text().splitlines()[-1])["event"] == "summary"


def test_every_block_is_tested():
    languages = re.findall(r"^ *```(\w+)$", PAGE, re.MULTILINE)
    assert sorted(set(languages)) == ["crontab", "ini", "logrotate", "sh", "yaml"]
    assert len(SCRIPTS) == len(blocks(PAGE, "sh")) - 2  # those of useradd and docker
    for block in blocks(PAGE, "yaml"):
        assert yaml.safe_load(block)
