"""The environment variable of each option, and names that people set for other purposes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer

from asyncbatch.cli.app import app
from tests.commands import run_command_text

ENDING = {
    *("--version", "--help", "--help-all", "--print-schema"),
    *("--install-completion", "--show-completion"),
}


def all_options():
    """Yield the words, context and options of each command and group."""
    root = typer.main.get_command(app)
    context = root.make_context("asyncbatch", ["run"], resilient_parsing=True)
    commands: list[Any] = [((), root, context)]
    while commands:
        words, command, context = commands.pop()
        options = command.get_params(context)
        yield words, context, [one for one in options if one.param_type_name == "option"]
        for name in getattr(command, "commands", {}):
            inner = command.get_command(context, name)
            inside = type(context)(inner, parent=context, info_name=name)
            commands.append(((*words, name), inner, inside))


def test_each_option_has_one_variable_of_its_own_by_its_name():
    variables: dict[str, str] = {}
    for words, _, options in all_options():
        for option in options:
            longest = max(option.opts, key=len)
            if longest in ENDING:
                continue
            parts = ["asyncbatch", *words, longest.removeprefix("--")]
            assert option.envvar == "_".join(parts).replace("-", "_").upper()
            assert not option.allow_from_autoenv
            assert variables.setdefault(option.envvar, longest) == longest
    assert {"ASYNCBATCH_RUN_BATCH_SIZE", "ASYNCBATCH_ETL_SET"} <= variables.keys()
    assert len(variables) > 100


@pytest.mark.parametrize("value", ["1", "0.1.0", "true", "bash"])
def test_options_that_end_the_command_take_nothing_from_the_environment(value, monkeypatch):
    ending = []
    for words, context, options in all_options():
        for option in options:
            longest = max(option.opts, key=len)
            if longest in ENDING:
                variable = "_".join(["asyncbatch", *words, option.name]).replace("-", "_").upper()
                monkeypatch.setenv(variable, value)
                ending.append(variable)
                assert option.resolve_envvar_value(context) is None
    assert {"ASYNCBATCH_VERSION", "ASYNCBATCH_HELP", "ASYNCBATCH_RUN_HELP"} <= set(ending)


COMMANDS = [
    ("run", "in", "--to", "out.jsonl", "-q"),
    ("etl", "job.toml", "-q"),
    ("stream", "events.jsonl", "--window", "tumbling:1m", "--to", "windows.jsonl", "-q"),
    ("merge-reports", "a.json"),
    ("ledger", "path", "sqlite:///out.db"),
    ("generate", "events", "--count", "3", "--to", "made.jsonl"),
    ("init", "new.toml"),
]
RECORD = '{"a": {"b c": [1, 2]}, "n": 1}'
JOB = """\
name = "job"
[[source]]
type = "files"
paths = ["in"]
[sink]
to = "out.jsonl"
"""
PINS = {
    "ASYNCBATCH_VERSION": "0.1.0",
    "ASYNCBATCH_HELP": "1",
    "ASYNCBATCH_INSTALL_COMPLETION": "bash",
    "ASYNCBATCH_SHOW_COMPLETION": "bash",
    "ASYNCBATCH_HOME": "/opt/asyncbatch",
    "ASYNCBATCH_DEBUG": "1",
    "ASYNCBATCH_CONFIG": "x.toml",
    "ASYNCBATCH": "1",
    "ASYNCBATCH_RUN": "1",
    "ASYNCBATCH_ETL_PRINT_SCHEMA": "1",
    "ASYNCBATCH_STREAM_PRINT_SCHEMA": "1",
    "ASYNCBATCH_RUN_HELP": "1",
    "ASYNCBATCH_RUN_VERSION": "0.1.0",
}


def command(cwd, *arguments, **env):
    return run_command_text(*arguments, cwd=cwd, env=env)


@pytest.fixture
def place(files):
    event = '{"timestamp": "2026-01-01T00:00:00Z", "n": 1}\n'
    return files({"in/a.json": RECORD, "job.toml": JOB, "events.jsonl": event})


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_the_pins_of_a_container_change_nothing(arguments, place):
    report = json.dumps({"schema_version": 1})
    (place / "a.json").write_text(report)
    plain = command(place, *arguments)
    made = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    for name in made.keys() - {"job.toml", "events.jsonl", "a.json"}:
        (place / name).unlink()
    pinned = command(place, *arguments, **PINS)
    assert pinned.returncode == plain.returncode
    assert (pinned.stdout, pinned.stderr) == (plain.stdout, plain.stderr)
    again = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    assert again.keys() == made.keys()
    assert again.get("out.jsonl") == made.get("out.jsonl")


def test_a_program_with_blanks_may_stand_in_a_variable(place):
    env = {"ASYNCBATCH_RUN_JQ": '.a | ."b c"[]'}
    assert command(place, "run", "in", "--to", "-", "-q", **env).stdout == "1\n2\n"
    env = {"ASYNCBATCH_RUN_JQ": '.a | ."b c"\n.[1]\n'}  # one program a line
    assert command(place, "run", "in", "--to", "-", "-q", **env).stdout == "2\n"


def test_the_settings_of_a_pipeline_file_may_stand_in_a_variable(place):
    env = {"ASYNCBATCH_ETL_SET": 'sink.to="other one.jsonl"\nname = "another"\n'}
    finished = command(place, "etl", "job.toml", "-q", **env)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads((place / "other one.jsonl").read_text()) == json.loads(RECORD)


def test_the_short_name_shows_the_version_too(tmp_path):
    short, long = (run_command_text(name, cwd=tmp_path).stdout for name in ("-V", "--version"))
    assert short == long
    assert short.startswith("asyncbatch ")
