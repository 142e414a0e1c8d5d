"""One declaration of an option is its flag, help, variable, TOML key, schema and completion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
from typer.main import get_command

from asyncbatch.cli.app import app
from asyncbatch.cli.options.flags import flags
from asyncbatch.config.pipeline_file.check import pipeline_schema, stream_schema
from tests.commands import ROOT, environment, run_command
from tests.reference import FAILURES_PATH, PATH, failures, groups, reference, typer_options

if TYPE_CHECKING:
    from typer.core import TyperGroup

DECLARATION = """\
    lateness: Annotated[
"""
MADE_UP = """\
    made_up: Annotated[
        Span | None, option("Wait for DURATION of nothing.", metavar="DURATION")
    ] = None
"""
JOB = """\
name = "job"
window = { spec = "tumbling:5s", made_up = "2m" }
source = { path = "e.jsonl" }
"""


@pytest.fixture
def changed(tmp_path):
    """Return a function that runs a copy of the program with an option more."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "asyncbatch", copy / "asyncbatch")
    module = copy / "asyncbatch" / "config" / "options" / "streams.py"
    text = module.read_text()
    assert text.count(DECLARATION) == 1
    module.write_text(text.replace(DECLARATION, MADE_UP + DECLARATION))

    def _changed(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "asyncbatch", *arguments], check=False, capture_output=True,
            text=True, cwd=tmp_path, env=environment(PYTHONPATH=str(copy), **variables),
        )  # fmt: skip

    return _changed


def test_an_option_that_is_declared_once_is_everywhere(changed, tmp_path):
    shown = changed("stream", "--help-all").stdout
    assert "--made-up DURATION" in shown
    assert "Wait for DURATION of nothing." in shown
    schema = json.loads(changed("stream", "--print-schema").stdout)
    key = schema["$defs"]["WindowTable"]["properties"]["made_up"]
    assert key == {"description": "Wait for DURATION of nothing.", "type": ["number", "string"],
                   "minimum": 0}  # fmt: skip
    (tmp_path / "s.toml").write_text(JOB)
    (tmp_path / "e.jsonl").write_text('{"timestamp": 1}\n')
    assert changed("stream", "s.toml", "--check").returncode == 0
    wrong = changed("stream", "s.toml", "--check", "--set", "window.made_up=soon").stderr
    assert 'window.made_up: "soon" is not a duration' in wrong
    wrong = changed("stream", "e.jsonl", "--made-up", "soon").stderr
    assert "'--made-up'" in wrong
    assert '"soon" is not a duration' in wrong
    wrong = changed("stream", "e.jsonl", ASYNCBATCH_STREAM_MADE_UP="soon").stderr
    assert '"soon" is not a duration' in wrong
    words = {"COMP_WORDS": "asyncbatch stream --made", "COMP_CWORD": "2"}
    completed = changed(_ASYNCBATCH_COMPLETE="complete_bash", **words).stdout
    assert completed.split() == ["--made-up"]
    assert changed("stream", "e.jsonl", "--made-up", "2m").returncode == 0


# Names with two meanings or texts, and the reason.
TWO_MEANINGS = {
    "--to": "each command writes something else",
    "--check-formats": "validate checks them unless told otherwise",
    "--schema": "validate needs one",
    "--output": "merged reports have no events, and a stream has no files to be test cases",
}
# Names with one meaning that is told in the words of the command, and the reason.
TWO_TEXTS = {
    "--agg": "simulated events have a default of their own",
    "--dead-letter": "the inputs of a stream are events",
    "--dry-run": "a run lists files, a pipeline shows rows",
    "--max-keys": "keys of a window, or groups of a run",
    "--max-failures": "a stream counts late events too, and keeps exit status 0 without it",
    "--quiet": "a stream prints windows",
    "--report": "a stream has no files to be test cases",
    "--print-schema": "streams have pipeline files of their own",
    "--resume": "a pipeline always does",
    "--retries": "a pipeline has a number for each source, and a stream reads its sources again",
    "--table": "a pipeline file has a table already",
    "--timeout": "for each file, or for each event",
    "--verbose": "a stream has events and windows",
    "--workers": "a stream starts them at high rates",
}
# Keys of pipeline files that are no flags, and flags that have another name there.
OTHER_KEYS = {
    "source, transform, aggregate, sink, window, checkpoint, late, dead_letter, name": (
        "tables and names"
    ),
    "type, kind, spec, size, every, gap, aggregates": "parts of --window and --agg",
    "paths, path, urls, pagination, auth, headers, incremental, param, start, size_param, total, "
    "pages, end_status, more, on_repeat, limit_param, next, field, initial, max, lag, "
    "username, password, token, value, rate_limit, max_pages, max_body, allow_origins, "
    "method, body, key_field, parent, end, base, next_header, last_record, param_in, following, "
    "repeatable, url, "
    "longest_wait": "sources, which arguments name on a command line, and HTTP, which it lacks",
    "tls, ca, cert, key_password, proxy, conditional, token_url, client_id, client_secret, "
    "refresh_token, refresh_token_file, scope, audience, params, client_auth": (
        "the access to HTTP servers"
    ),
    "fields, from, apply, default, now, on_missing, expr, function, file, refs, env, lossy": (
        "transforms, which are tables in an order of their own"
    ),
    "pool, min, statement_timeout, flush_interval": "connections to a database of etl",
}


def test_an_option_means_the_same_in_each_command():
    found: dict[str, set[Any]] = {}
    for _, kind in groups():
        for flag in flags(kind):
            assert flag.help[0].isupper(), flag
            assert flag.panel
            meaning = flag.names, str(flag.kind), flag.is_many, flag.form, flag.splits, flag.metavar
            found.setdefault(flag.names[0].partition("/")[0], set()).add(meaning)
    assert len(found) > 90
    several = {name for name, meanings in found.items() if len(meanings) > 1}
    assert several <= set(TWO_MEANINGS)


def test_an_option_has_one_type_and_text_in_the_tree_of_commands():
    group = cast("TyperGroup", get_command(app))
    context = group.make_context("asyncbatch", ["run"], resilient_parsing=True)
    types: dict[str, set[Any]] = {}
    texts: dict[str, set[str]] = {}
    for command in ("run", "validate", "etl", "stream"):
        found = group.get_command(context, command)
        assert found is not None
        for one in found.params:
            text = getattr(one, "help", "")
            assert text, one.name
            if one.param_type_name == "option":
                name = max(one.opts, key=len)
                choices = tuple(getattr(one.type, "choices", ()))
                kind = one.type.name, choices, one.metavar, one.multiple, one.nargs
                names = tuple(one.opts), tuple(one.secondary_opts)
                types.setdefault(name, set()).add((*kind, *names))
                texts.setdefault(name, set()).add(text)
    two_types = {name for name, several in types.items() if len(several) > 1}
    assert two_types == {"--check-formats", "--output"}
    two_texts = {name for name, several in texts.items() if len(several) > 1}
    assert two_texts == {*TWO_MEANINGS, *TWO_TEXTS}


def test_flags_and_keys_of_pipeline_files_have_the_same_names():
    exceptions = {word for words in OTHER_KEYS for word in words.split(", ")}
    names = {flag.field for _, kind in groups() for flag in flags(kind)}
    for schema in (pipeline_schema(), stream_schema()):
        for table in schema["$defs"].values():
            assert set(table["properties"]) - exceptions <= names, table["title"]


def test_no_command_has_two_options_of_one_name():
    seen = set()
    for command, kind in groups():
        for flag in flags(kind):
            for name in flag.names:
                assert (command, name) not in seen
                seen.add((command, name))


def test_a_description_is_short_and_names_its_value():
    without = {"--to", "--set", "--window", "--agg"}  # whose forms are the description
    for _, kind in groups():
        for flag in flags(kind):
            text = flag.help.partition("  [default: ")[0].removesuffix(" Repeatable.")
            assert text.endswith("."), text
            assert len(re.findall(r"\.(?: |$)", text)) <= 2, text
            assert len(text) < (200 if flag.names[0] == "--to" else 160), text
            if flag.metavar is not None and flag.names[0] not in without:
                named = set(re.findall("[A-Z]+", flag.metavar))
                assert named & set(re.findall(r"\b[A-Z]+\b", text)), (flag.metavar, text)


COMMANDS = [
    "", "run", "validate", "etl", "stream", "init", "ledger", "ledger show", "ledger clear",
    "ledger path", "config", "config show", "config schema", "merge-reports", "generate",
    "generate events", "man",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_in_80_columns(tmp_path, command):
    for option in ("--help", "--help-all") if command in COMMANDS[1:5] else ("--help",):
        ran = run_command(*command.split(), option, cwd=tmp_path, env={"COLUMNS": "80"})
        assert (ran.returncode, ran.stderr) == (0, b"")
        lines = ran.stdout.decode().splitlines()
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines[1:] if line.endswith("...")]  # a text that was cut


def test_the_help_of_the_program_names_the_documentation(tmp_path):
    shown = run_command("--help", cwd=tmp_path).stdout.decode()
    named = re.findall(r"[\w/-]+\.md", shown)
    assert named == ["README.md", "docs/options.md", "docs/automation.md"]
    assert all((ROOT / name).exists() for name in named)


def test_a_duration_has_one_form_in_all_commands(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "e.jsonl").write_text('{"timestamp": 1}\n')
    for text in ("1m", "60", "60s", "60000ms", "1.5h"):
        assert run_command("run", "a.json", "--grace", text, cwd=tmp_path).returncode == 0
        ran = run_command("stream", "e.jsonl", "--duration", text, cwd=tmp_path)
        assert ran.returncode == 0
    for command in (("run", "a.json", "--grace"), ("stream", "e.jsonl", "--duration")):
        for text in ("soon", "-1", "5w", ""):
            ran = run_command(*command, text, cwd=tmp_path)
            assert ran.returncode == 2
            assert b"is not a duration" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("stream", "simulate:", "--rate", "0"), "must be more than 0"),
        (("stream", "simulate:", "--rate", "nan"), "must be more than 0"),
        (("stream", "simulate:", "--users", "0"), "--users"),
        (("run", ".", "--timeout", "0"), "must be more than 0"),
        (("run", ".", "--max-file-size", "0"), "must be at least 1"),
        (("run", ".", "--workers", "-1"), "--workers"),
        (("run", ".", "--key", "a,,b"), "has an empty name"),
    ],
)
def test_numbers_and_names_have_bounds(tmp_path, arguments, told):
    ran = run_command(*arguments, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert told in ran.stderr.decode()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("run .", f"--{name}") for name in (
            "key", "by", "agg", "dedupe", "columns", "add", "allow-origins", "pattern", "exclude",
            "schema", "table", "root", "ledger", "report", "log-file", "dead-letter", "config",
        )),
        *(("stream -", f"--{name}") for name in ("by", "agg", "checkpoint", "late")),
        ("stream simulate:", "--types"), ("profile .", "--pattern"), ("schema infer .", "--to"),
    ],
)  # fmt: skip
def test_an_empty_value_is_told_with_its_option(tmp_path, command, name):
    (tmp_path / "a.json").write_text("1")
    ran = run_command(*command.split(), name, "", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert f"Invalid value for '{name}': is empty" in ran.stderr.decode()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--null", "--null needs --files-from"),
        ("--identity content", "--identity needs --to or --resume"),
        ("--pause 1s --concurrency 4", "--pause runs one batch at a time: leave out --concurrency"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, told):
    (tmp_path / "a.json").write_text("1")
    ran = run_command("run", "a.json", *options.split(), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert told in ran.stderr.decode()
    for same in ("--pause 0 --concurrency 4", "--identity content --resume", "--pause 1ms"):
        ran = run_command("run", "a.json", *same.split(), cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_variable_that_sets_no_option_is_told(tmp_path):
    (tmp_path / "a.json").write_text("1")
    given = {"ASYNCBATCH_RUN_WORKER": "2", "ASYNCBATCH_RUN_WORKERS": "0", "ASYNCBATCH_OTHER": "1"}
    env = environment(**given, ASYNCBATCH_STREAM_WORKER="1", ASYNCBATCH_RUN_LIMIT="1")
    ran = run_command("run", "a.json", cwd=tmp_path, env=env)
    told = "Warning: the variable ASYNCBATCH_RUN_WORKER sets no option: is ASYNCBATCH_RUN_WORKERS"
    assert (ran.returncode, ran.stderr.decode()) == (0, f"{told} meant?\n")
    ran = run_command("run", "a.json", "-q", cwd=tmp_path, env=env)
    assert (ran.returncode, ran.stderr) == (0, b"")
    env = environment(ASYNCBATCH_PROFILE_TOPS="1", ASYNCBATCH_SCHEMA_INFER_STRICT="1")
    for command, near in (("profile", b"ASYNCBATCH_PROFILE_TOP meant"), ("schema infer", b"")):
        ran = run_command(*command.split(), "a.json", cwd=tmp_path, env=env)
        assert ran.returncode == 0
        assert near in ran.stderr
        assert (b"Warning" in ran.stderr) == bool(near)


@pytest.mark.parametrize("command", ["run", "stream", "etl", "profile", "schema infer"])
def test_an_empty_input_is_told(tmp_path, command):
    ran = run_command(*command.split(), "", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert re.search("Invalid value for '.+': is empty", ran.stderr.decode())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("run", ".", "--jobs", "2"), "--workers"),
        (("run", ".", "--parallel", "2"), "--workers"),
        (("run", ".", "--include", "*.json"), "--pattern"),
        (("run", ".", "--halt", "now"), "--fail-fast"),
        (("stream", "-", "--group-by", "a"), "--by"),
        (("etl", "a.toml", "--incremental"), None),
    ],
)
def test_names_of_other_tools_lead_to_ours(tmp_path, arguments, hint):
    ran = run_command(*arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert (hint is not None) == (f"(Possible options: {hint})".encode() in ran.stderr)


def test_an_option_for_one_file_is_not_given_twice(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    ran = run_command("run", "a.json", "--to", "x.jsonl", "--to=y.jsonl", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert b"--to is given 2 times" in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]
    twice = ("--workers", "1", "--workers", "0", "--jq", ".", "--jq", ".")
    assert run_command("run", "a.json", *twice, cwd=tmp_path).returncode == 0


def test_an_old_name_works_hidden_and_with_a_note(tmp_path):
    (tmp_path / "a.json").write_text("1\n2\n")
    note = b"Note: --format is now called --input-format\n"
    for given, told in (
        (("--input-format", "jsonl"), b""),
        (("--format", "jsonl"), note),
        (("--format=jsonl",), note),
        (("--format", "jsonl", "-q"), b""),
    ):
        ran = run_command("run", "a.json", *given, "-o", "json", cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, told)
    note = b"Note: the variable ASYNCBATCH_RUN_FORMAT is now called ASYNCBATCH_RUN_INPUT_FORMAT\n"
    old = {"ASYNCBATCH_RUN_FORMAT": "jsonl"}
    ran = run_command("run", "a.json", "-o", "json", cwd=tmp_path, env=old)
    assert (ran.returncode, ran.stderr) == (0, note)
    new = {"ASYNCBATCH_RUN_INPUT_FORMAT": "jsonl", "ASYNCBATCH_RUN_FORMAT": "seq"}
    assert run_command("run", "a.json", cwd=tmp_path, env=new).returncode == 0
    (tmp_path / "asyncbatch.toml").write_text('[run]\ninput_format = "jsonl"\n')
    assert run_command("run", "a.json", cwd=tmp_path).returncode == 0
    for words in (("run", "--help-all"), ("validate", "--help-all"), ("run", "--help")):
        assert b" --format" not in run_command(*words, cwd=tmp_path).stdout
    assert b"--input-format" in run_command("run", "--help-all", cwd=tmp_path).stdout


def test_help_shows_the_main_options_and_how_to_see_all(tmp_path):
    for command in ("run", "etl", "stream", "validate"):
        few = run_command(command, "--help", cwd=tmp_path).stdout.decode()
        every = run_command(command, "--help-all", cwd=tmp_path).stdout.decode()
        named = set(re.findall(r"^  (?:-\w, )*(--[a-z-]+)", every, re.MULTILINE))
        shown = set(re.findall(r"^  (?:-\w, )*(--[a-z-]+)", few, re.MULTILINE))
        assert shown - {"--help-all"} < named
        assert f"{len(named - shown)} more" in few
        assert max(map(len, few.splitlines())) <= 91  # the examples are as they are written


def test_the_reference_is_that_of_the_declarations():
    assert PATH.read_text() == reference(), "write it again: make reference"
    assert FAILURES_PATH.read_text() == failures(), "write it again: make reference"


def test_the_reference_has_each_option_of_each_command():
    page = re.split("^## ", reference(), flags=re.MULTILINE)
    sections = {part.partition("\n")[0].strip("`"): part for part in page}
    of_both = sections["asyncbatch history show|diff"]
    sections |= {"asyncbatch history show": of_both, "asyncbatch history diff": of_both}
    seen = 0
    for command, one in typer_options():
        name = max(one.opts, key=len)
        assert re.search(rf"{name}\b", sections[f"asyncbatch {command}"]), (command, name)
        seen += 1
    assert seen > 200
