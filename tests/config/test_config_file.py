"""Configuration files: found or named, with profiles, checked, shown, and trusted or not."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tomllib
from contextlib import closing
from typing import Any, get_args

import jsonschema_rs
import pytest
import typer

from asyncbatch.cli.app import app
from asyncbatch.config.config_search import COMMANDS, find_config
from asyncbatch.config.configuration import key_lines
from tests.commands import ROOT, run_command_text

FILE = """\
[run]
limit = 2
[profile.small.run]
limit = 1
[profile.other.validate]
retries = 3
"""


@pytest.fixture
def place(files):
    names = {f"data/{number}.json": '{"n": 1}' for number in range(5)}
    return files({**names, "asyncbatch.toml": FILE, "below/deep/x.json": "1"})


def command(folder, *arguments, **env):
    return run_command_text(*arguments, cwd=folder, env={"HOME": "/nowhere", **env})


def read(folder, *arguments, **env):
    """Return how many files a run reads."""
    ran = command(folder, "run", *arguments, "-o", "json", **env)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)["files"]["total"]


def test_flags_come_before_variables_profiles_and_the_file(place):
    env = {"ASYNCBATCH_RUN_LIMIT": "3"}
    assert read(place, "data", "--no-config") == 5
    assert read(place, "data") == 2
    assert read(place, "data", "--profile", "small") == 1
    assert read(place, "data", ASYNCBATCH_PROFILE="small") == 1
    assert read(place, "data", ASYNCBATCH_RUN_PROFILE="small") == 1
    assert read(place, "data", "--profile", "other") == 2
    assert read(place, "data", "--profile", "small", **env) == 3
    assert read(place, "data", "--profile", "small", "--limit", "4", **env) == 4


def test_a_file_is_found_upwards_to_a_repository_or_the_home_folder(place):
    data = str(place / "data")
    deep = place / "below" / "deep"
    assert read(deep, data) == 2
    assert read(deep, data, HOME=str(place)) == 2
    assert read(deep, data, HOME=str(place / "below")) == 5
    (place / ".git").mkdir()
    assert read(deep, data) == 2
    (place / "below" / ".git").write_text("gitdir: elsewhere")
    assert read(deep, data) == 5


def test_the_nearest_file_is_taken_and_none_of_a_project_without_our_table(place):
    data = str(place / "data")
    deep = place / "below" / "deep"
    (deep / "pyproject.toml").write_text('[project]\nname = "asyncbatch-user"\n')
    assert read(deep, data) == 2
    (place / "below" / "pyproject.toml").write_text("[tool.asyncbatch.run]\nlimit = 3\n")
    assert read(deep, data) == 3
    (place / "below" / "asyncbatch.toml").write_text("[run]\nlimit = 4\n")
    assert read(deep, data) == 4
    broken = "[tool.asyncbatch.run]\nlimit = 3\n[tool.other\n"
    (deep / "pyproject.toml").write_text(broken)
    ran = command(deep, "run", data)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pyproject.toml:3:12: is not TOML" in ran.stderr
    (deep / "pyproject.toml").write_text("[tool.other\n")
    assert read(deep, data) == 4


def test_anything_but_a_regular_file_is_no_configuration(place):
    (place / "asyncbatch.toml").unlink()
    os.mkfifo(place / "asyncbatch.toml")
    assert read(place, "data") == 5
    (place / "asyncbatch.toml").unlink()
    (place / "asyncbatch.toml").mkdir()
    assert read(place, "data") == 5


def test_a_file_of_another_user_is_passed_over(place, monkeypatch):
    path = place / "asyncbatch.toml"
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        ran = command(place, "run", "data", "-o", "json")
        assert json.loads(ran.stdout)["files"]["total"] == 5
        assert ran.stderr.startswith(
            "Note: asyncbatch.toml is not read, because it belongs to user 12345"
        )
        assert command(place, "run", "data", "-q").stderr == ""
        assert read(place, "data", "--config", "asyncbatch.toml") == 2
        os.lchown(path, 0, 0)
        (place / "link").symlink_to(path)
        os.lchown(place / "link", 12345, 12345)
        (place / "below" / "asyncbatch.toml").symlink_to(path)
        os.lchown(place / "below" / "asyncbatch.toml", 12345, 12345)
        assert "belongs to" in command(place / "below", "run", "../data").stderr
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    notes: list[str] = []
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    assert find_config(notes.append) is None
    assert "belongs to user" in notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[run]\n\nbatch-size = 3\n", ":3: run.batch-size: unknown key (did you mean 'batch_size"),
        ("[run]\nlimit = '3'\n", ':2: run.limit: must be a whole number, not "3"'),
        ("[run]\nlimit = 0\n", ":2: run.limit: is 0; it cannot be less than 1"),
        ("[run]\npattern = [\n 'a',\n 3,\n]\n", ":2: run.pattern[1]: must be a string, not 3"),
        ("[run]\npattern = 'a'\n", ":2: run.pattern: must be an array"),
        ("[run]\nx = '''\n[a]\n'''\nquiet = 1\n", ":5: run.quiet: must be true or false, not 1"),
        ("run = {quiet = 1}\n", ":1: run.quiet: must be true or false, not 1"),
        ("run = 3\n", ":1: run: must be a table: write [run]"),
        ("a = 1\n[runs]\nlimit = 1\n", ":2: runs: unknown table (did you mean 'run'?)"),
        ("profile = 3\n", ":1: profile: must be a table"),
        ("[run]\ntimeout = 'soon'\n", ':2: run.timeout: "soon" is not a duration'),
        ("[run]\nunit = 'files'\n", ':2: run.unit: must be one of file, record, not "files"'),
        ("[run]\nshow_failures = -1\n", ":2: run.show_failures: -1 is neither a number nor 'all'"),
        ("[run]\nno_config = true\n", ":2: run.no_config: unknown key"),
        ("[run]\ntable = '${NO_SUCH_NAME}'\n", ":2: run.table: the environment variable NO_SUCH"),
        ("[run\n", ":1:5: is not TOML"),
        ("\ufeff[run]\nlimit = 'x'\n", ":2: run.limit: must be"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_file_and_line(place, text, told):
    (place / "asyncbatch.toml").write_text(text)
    ran = command(place, "run", "data")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"asyncbatch.toml{told}" in ran.stderr
    assert command(place, "run", "data", "--no-config").returncode == 0


def test_a_mistake_of_a_profile_counts_if_it_is_chosen(place):
    (place / "asyncbatch.toml").write_text(
        "[profile.a.run]\nlimit = 1\n[profile.b.run]\nlimits = 1\n[profile.c.runs]\n"
    )
    assert read(place, "data", "--profile", "a") == 1
    ran = command(place, "run", "data", "--profile", "b")
    assert ":4: profile.b.run.limits: unknown key (did you mean 'limit'?)" in ran.stderr
    ran = command(place, "run", "data", "--profile", "c")
    assert ":5: profile.c.runs: unknown table (did you mean 'run'?)" in ran.stderr
    ran = command(place, "run", "data", "--profile", "aa")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "profile: there is no profile 'aa' (did you mean 'a'?)" in ran.stderr
    (place / "asyncbatch.toml").unlink()
    ran = command(place, "run", "data", ASYNCBATCH_PROFILE="a")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "there is no asyncbatch.toml in this folder or above" in ran.stderr
    assert read(place, "data", "--no-config", ASYNCBATCH_PROFILE="a") == 5


def test_another_file_is_named_by_a_flag_or_a_variable(place):
    (place / "other.toml").write_text("[run]\nlimit = 4\n")
    assert read(place, "data", "--config", "other.toml") == 4
    assert read(place, "data", ASYNCBATCH_CONFIG_FILE="other.toml") == 4
    assert (
        read(place, "data", "--config", "asyncbatch.toml", ASYNCBATCH_CONFIG_FILE="other.toml") == 2
    )
    ran = command(place, "run", "data", "--config", "none.toml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "none.toml: No such file or directory" in ran.stderr


def test_help_and_version_read_no_file(place):
    (place / "asyncbatch.toml").write_text("[run\n")
    for words in (("--version",), ("--help",), ("run", "--help"), ("run", "--help-all")):
        ran = command(place, *words)
        assert (ran.returncode, ran.stderr) == (0, ""), words
    assert command(place, "stream", "--print-schema").returncode == 0
    typed = {"COMP_WORDS": "asyncbatch run --lim", "COMP_CWORD": "2"}
    ran = command(place, _ASYNCBATCH_COMPLETE="complete_bash", **typed)
    assert ran.stdout.split() == ["--limit"]
    assert command(place, "run", "data").returncode == 2


# The options that may run code or programs, or lead to other files and servers.
TRUSTED = {
    "run": {
        *("call", "jq", "jq_env", "engine", "scheduler", "endpoint", "mode", "allow_origins"),
        *("files_from", "from_dead_letter", "follow_symlinks", "ping", "live"),
        *("on_delete", "max_delete", "move_done", "move_failed", "delete_done", "metrics_port"),
    },
    "validate": {"endpoint", "allow_origins", "files_from", "follow_symlinks", "ping", "live"},
    "etl": {
        *("set", "engine", "scheduler", "ping", "live"),
        *("move_done", "move_failed", "delete_done", "metrics_port"),
    },
    "stream": {"set", "call", "jq", "jq_env", "ping", "live"},
}
# The options that write files or tables.
OUTPUTS = {
    "run": {"to", "dead_letter", "report", "log_file", "ledger", "lock"},
    "validate": {"dead_letter", "report", "log_file"},
    "etl": {"to", "dead_letter", "report", "log_file", "lock"},
    "stream": {"to", "dead_letter", "late", "checkpoint", "report", "log_file", "lock"},
}
# Options whose value names a file that is only compared or looked into: nothing of it is passed on.
HARMLESS = {"schema", "ref", "root", "table"}


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    context = typer.Context(root)
    return {name: root.get_command(context, name) for name in COMMANDS}


def test_options_that_name_files_servers_or_code_are_trusted():
    for name, one in commands().items():
        found = one.callback.flags.values()
        assert {flag.parameter for flag in found if flag.is_trusted} == TRUSTED[name]
        assert {flag.parameter for flag in found if flag.is_output} == OUTPUTS[name]
        reaching = {"FILE", "[FILE]", "TARGET", "URL", "ADDRESS", "DIR", "FUNCTION", "EXPR"}
        for flag in found:
            if reaching & set((flag.metavar or "").split("|")) and not flag.is_eager:
                is_guarded = flag.is_trusted or flag.is_output
                assert is_guarded or flag.parameter in HARMLESS, flag.parameter


SAMPLES = {
    "duration": "2m", "span": "90s", "size": "64K", "pointer": "/a/b", "path": "a.b",
    "window": "session:3s", "aggregate": "sum:x", "shard": "2/3", "count": "all",
    "http_url": "https://example.com/x", "api_url": "https://example.com/x", "ping_url": "https://example.com/ping/x",
    "listen_address": "[::1]:8000",
}  # fmt: skip


LISTED_SAMPLES = {
    "origin": ["https://a.example", "http://b:8"],
    "aggregate": ["count", "sum:a"],
    "column": ["file", "record=number"],
}


def sample(flag):  # noqa: PLR0911 - one case a type
    """Return a value of TOML, and the same as arguments."""
    name = flag.names[0].partition("/")[0]
    if flag.form is not None and not flag.is_many:
        return SAMPLES[flag.form], [name, SAMPLES[flag.form]]
    if (several := LISTED_SAMPLES.get(flag.form)) is not None:
        return several, [name, ",".join(several)]
    if flag.splits:
        return ["a", "b,c"], [name, 'a,"b,c"']
    if flag.is_many:
        one = SAMPLES.get(flag.form, 'x "y", {z}')
        return [one, one], [name, one, name, one]
    if flag.kind is bool:
        return not flag.default, [name] if not flag.default else [flag.names[0].partition("/")[2]]
    if flag.kind is str:
        return "a b", [name, "a b"]
    if choices := get_args(flag.kind):
        return choices[-1], [name, choices[-1]]
    return flag.kind(3), [name, "3"]


def options(one, name, arguments, flag):
    root: Any = typer.main.get_command(app)
    words = ["x"] if name == "stream" else []
    words += ["--schema", "s"] if name == "validate" and "--schema" not in arguments else []
    parent = typer.Context(root, info_name="asyncbatch", auto_envvar_prefix="ASYNCBATCH")
    with one.make_context(name, [*arguments, *words], parent=parent) as context:
        return flag.value(context.params[flag.parameter])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_may_stand_in_the_file_and_means_the_same(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = commands()[name]
    seen = 0
    for flag in one.callback.flags.values():
        if flag.is_eager or (name, flag.parameter) == ("validate", "schema"):
            continue
        value, arguments = sample(flag)
        if flag.needs:  # a file may set it alone
            arguments = [*arguments, *sample(one.callback.flags[flag.needs[0]])[1]]
        # A profile is read as its file is: a quarter of the options shows it.
        tables = (f"[{name}]", f"[profile.p.{name}]")[: 1 + (seen % 4 == 0)]
        for table in tables:
            text = f"{table}\n{flag.parameter} = {json.dumps(value)}\n"
            (tmp_path / "c.toml").write_text(text)
            (tmp_path / "asyncbatch.toml").write_text(text)
            profile = ["--profile", "p"] if "profile" in table else []
            expected = options(one, name, [*arguments, "--no-config"], flag)
            named = options(one, name, ["--config", "c.toml", *profile], flag)
            assert named == expected, flag.parameter
            if not flag.is_trusted:
                assert options(one, name, profile, flag) == expected, flag.parameter
                continue
            with pytest.raises(typer.Exit) as caught:
                options(one, name, profile, flag)
            assert caught.value.exit_code == 2
            place = f"asyncbatch.toml:2: {table[1:-1]}.{flag.parameter}"
            assert f"{place}: can run code" in capsys.readouterr().err
        seen += 1
    assert seen > 15


@pytest.mark.parametrize("line", ['null_value = "${HOME}"', 'exclude = ["a", "${X:-b}"]'])
def test_a_found_file_takes_nothing_from_the_environment(place, line):
    (place / "asyncbatch.toml").write_text(f"[run]\n{line}\n")
    ran = command(place, "config", "show", "run")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ": has a variable, which may be a secret" in ran.stderr
    named = command(place, "config", "show", "run", "--config", "asyncbatch.toml")
    assert line in named.stdout


@pytest.mark.parametrize(
    ("value", "is_below"),
    [
        ("o.jsonl", True),
        ("out/", True),
        ("../in/o.jsonl", True),
        ("sqlite:///o.db", True),
        ("-", True),
        ("../o.jsonl", False),
        ("/tmp/o.jsonl", False),
        ("sqlite:////tmp/o.db", False),
        ("duckdb:///../o.db", False),
        ("linked/o.jsonl", False),
        (".git/config", False),
        ("out/.profile", False),
        ("s3://bucket/o.jsonl", False),
        ("postgresql://host/db", False),
    ],
)
def test_a_found_file_writes_only_below_its_folder(place, tmp_path_factory, value, is_below):
    inside = place / "in"
    inside.mkdir()
    (inside / "linked").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    for line in (f'to = "{value}"', f'report = ["r.json", "{value}"]', f'dead_letter = "{value}"'):
        (inside / "asyncbatch.toml").write_text(f"[run]\n{line}\n")
        shown = command(inside, "config", "show", "run")
        assert shown.returncode == (0 if is_below else 2), shown.stderr
        assert is_below or "writes outside the folder of this file" in shown.stderr


def test_a_found_file_has_a_whole_nightly_job(place):
    (place / "asyncbatch.toml").write_text("""\
[profile.nightly.run]
to = "sqlite:///all.db"
table = "people"
dead_letter = "bad.jsonl"
report = ["run.json"]
lock = "nightly.lock"
""")
    assert command(place, "run", "data", "--profile", "nightly").returncode == 0
    with closing(sqlite3.connect(place / "all.db")) as database:
        rows = database.execute("SELECT count(*) FROM people").fetchone()
    assert rows == (json.loads((place / "run.json").read_text())["records"]["written"],)
    assert rows[0] > 0


def test_a_found_file_runs_nothing_and_a_named_one_does(place):
    (place / "mine.py").write_text("open('RAN', 'w')\ndef f(record):\n    return record\n")
    (place / "asyncbatch.toml").write_text('[run]\ncall = ["mine.py:f"]\n')
    ran = command(place, "run", "data")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "name it by --config asyncbatch.toml" in ran.stderr.replace("trust it", "name it")
    assert not (place / "RAN").exists()
    assert command(place, "run", "data", "--config", "asyncbatch.toml").returncode == 0
    assert (place / "RAN").exists()


def test_the_values_and_their_places_are_shown(place):
    (place / "asyncbatch.toml").write_text("""\
# ours
[run]
to = "postgresql://me:pa55word@host/db"
limit = 2
timeout = "1m"
table = "${TABLE:-people}"
[profile.small.run]
limit = 1
[etl]
set = ["auth.token=t0ken", "sink.to=postgresql://me:pa55word@host/db"]
""")  # fmt: skip
    env = {
        "ASYNCBATCH_RUN_JQ": ".a\n.b", "ASYNCBATCH_RUN_TABLE": "",
        "ASYNCBATCH_RUN_ENDPOINT": "https://h/x?sig=s1gnature",
    }  # fmt: skip
    given = ("--config", "asyncbatch.toml", "--profile", "small")
    shown = command(place, "config", "show", *given, **env)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "# asyncbatch.toml",
        "",
        "[run]",
        "limit = 1  # asyncbatch.toml:8 [profile.small.run]",
        'endpoint = "https://h/x?sig=***"  # ASYNCBATCH_RUN_ENDPOINT',
        'jq = [".a", ".b"]  # ASYNCBATCH_RUN_JQ',
        'to = "postgresql://me@host/db"  # asyncbatch.toml:3 [run]',
        'table = "${TABLE:-people}"  # asyncbatch.toml:6 [run]',
        'timeout = "1m"  # asyncbatch.toml:5 [run]',
        "",
        "[etl]",
        'set = ["auth.token=***", "sink.to=postgresql://me@host/db"]  # asyncbatch.toml:10 [etl]',
    ]
    found = command(place, "config", "show", "run", "-o", "json", *given, **env)
    document = json.loads(found.stdout)
    assert (document["file"], document["profile"]) == ("asyncbatch.toml", "small")
    assert {"command": "run", "option": "limit", "value": 1, "file": "asyncbatch.toml", "line": 8,
            "table": "[profile.small.run]"} in document["options"]  # fmt: skip
    assert {"command": "run", "option": "jq", "value": [".a", ".b"],
            "variable": "ASYNCBATCH_RUN_JQ"} in document["options"]  # fmt: skip
    assert not any(secret in found.stdout for secret in ("pa55word", "t0ken", "s1gnature"))
    assert tomllib.loads(shown.stdout)["run"]["limit"] == 1


def test_without_a_file_there_is_nothing_to_show(tmp_path):
    shown = command(tmp_path, "config", "show")
    assert (shown.returncode, shown.stdout) == (0, "# no configuration file\n")
    wrong = command(tmp_path, "config", "show", "init")
    assert wrong.returncode == 2
    assert "init is not a command with options: run, validate, etl, stream" in wrong.stderr


def test_the_schema_has_the_key_of_every_option(tmp_path):
    schema = json.loads(command(tmp_path, "config", "schema").stdout)
    for name, one in commands().items():
        keys = {flag.parameter for flag in one.callback.flags.values() if not flag.is_eager}
        assert schema["$defs"][name]["properties"].keys() == keys
    is_valid = jsonschema_rs.validator_for(schema).is_valid
    assert is_valid(tomllib.loads(FILE))
    assert is_valid({"run": {"timeout": "1m", "key": ["a"], "show_failures": "all"}})
    assert not is_valid({"run": {"limit": "x"}})
    assert not is_valid({"runs": {}})
    assert not is_valid({"profile": {"a": {"run": {"limits": 1}}}})


def test_keys_have_lines():
    text = 'a = 1\n\n[b]\n# c = 2\nc = """\n[x]\n"""\nd.e = [\n  1,\n]\n["x.y".z]\nf = {g = 1}\n'
    assert key_lines(text) == {
        ("a",): 1, ("b",): 3, ("b", "c"): 5, ("b", "d"): 8, ("b", "d", "e"): 8, ("x.y",): 11,
        ("x.y", "z"): 11, ("x.y", "z", "f"): 12, ("x.y", "z", "f", "g"): 12,
    }  # fmt: skip


def test_the_page_about_configuration_files_is_right(place):
    page = (ROOT / "docs" / "configuration.md").read_text()
    [text, shown] = re.findall(r"```(?:toml)?\n(?=[#$])(.*?)```", page, re.DOTALL)
    (place / "asyncbatch.toml").write_text(text)
    words, _, expected = shown.removeprefix("$ asyncbatch ").partition("\n")
    ran = command(place, *words.split(), ASYNCBATCH_RUN_WORKERS="8")
    assert (ran.returncode, ran.stdout) == (0, expected)
    assert set().union(*TRUSTED.values()) <= set(re.findall(r"`(\w+)`", page))
