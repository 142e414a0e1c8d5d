"""Pipeline files of streams: valid contents, mistakes, and the streams they start."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import tomllib
from contextlib import closing
from typing import Any

import jsonschema_rs
import pytest

from asyncbatch.config.pipeline_file.load import (
    load_stream_file,
    parse_pipeline_file,
    parse_stream_file,
)
from asyncbatch.errors import PipelineFileError
from tests.commands import COMMAND, PATIENCE, ROOT, environment, run_command_text
from tests.conftest import Outcome

SHOP = ROOT / "sample_data" / "stream" / "shop.toml"
EVENTS = [
    {"t": f"2026-01-01T00:00:{second:02}Z", "k": "ab"[second % 2], "v": second}
    for second in range(12)
]
SMALL: dict[str, Any] = {
    "source": {"path": "events.jsonl"},
    "window": {"spec": "tumbling:5s", "time": "t", "by": ["k"]},
}


def parsed(document, *overrides, **variables) -> Any:
    return parse_stream_file(document, "s.toml", overrides, variables)


def mistakes(document, *overrides, **variables) -> list[str]:
    with pytest.raises(PipelineFileError) as caught:
        parsed(document, *overrides, **variables)
    return list(caught.value.mistakes)


def with_window(**more):
    return {**SMALL, "window": more}


@pytest.fixture
def stream(tmp_path):
    """Run `asyncbatch stream` with a pipeline file, in a folder with some events."""
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in EVENTS))

    def _stream(text, *arguments, stdin="", command="stream", **env):
        (tmp_path / "s.toml").write_text(text)
        finished = run_command_text(
            command, "s.toml", *arguments, cwd=tmp_path, stdin=stdin, env=env
        )
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return _stream


def short(outcome):
    windows = map(json.loads, outcome.stdout.splitlines())
    return [
        (int(one["window_start"][17:19]), *one["key"].values(), *one["aggregates"].values())
        for one in windows
    ]


FULL = """
name = "clicks"

[[source]]
type = "file"
path = "${LOG:-events.jsonl}"

[[source]]
type = "stdin"

[[transform]]
type = "require"
fields = ["k"]
on_missing = "drop"

[[transform]]
type = "jq"
expr = "select(.v != 3)"

[[transform]]
type = "fields"
[transform.fields]
when = "t"
kind = { from = "k", apply = ["upper"] }
v = "v"

[window]
kind = "hopping"
size = "10s"
every = 5
time = "when"
by = ["kind"]
lateness = "20s"
max_future = "1000h"
max_keys = 10
overflow_key = "others"
[window.aggregates]
number = "count"
total = "sum:v"

[sink]
to = "windows.db"

[checkpoint]
path = "stream.state"
every = "1s"

[late]
to = "late.jsonl"

[dead_letter]
to = "dead.jsonl"
"""


def test_a_full_file(stream, tmp_path):
    text = FULL.replace("windows.db", "sqlite:///windows.db").replace(
        "[checkpoint]", 'table = "w"\n[checkpoint]'
    )
    checked = stream(text, "--check")
    assert (checked.code, checked.stderr) == (0, "")
    assert checked.stdout == (
        "s.toml is valid: 2 sources (events.jsonl, -), 3 transforms, hopping:10s/5s, "
        "into w of sqlite:///windows.db\n"
    )
    assert not (tmp_path / "windows.db").exists()
    stdin = json.dumps({"t": "2026-01-01T00:00:04Z", "k": "c", "v": 0.5}) + '\n{"v": 1}\noops\n'
    done = stream(text, stdin=stdin)
    assert (done.code, done.stdout) == (0, "")
    assert "1 dropped" not in done.stderr
    assert "2 dropped, 1 rejected" in done.stderr
    with closing(sqlite3.connect(tmp_path / "windows.db")) as database:
        found = database.execute(
            "SELECT kind, number, total FROM w WHERE window_start LIKE '%:00Z'"
        )
        assert sorted(found) == [("A", 5, 20), ("B", 4, 22), ("C", 1, 0.5)]
    assert json.loads((tmp_path / "dead.jsonl").read_text())["file"] == "-"
    assert (tmp_path / "late.jsonl").read_text() == ""
    assert (tmp_path / "stream.state").exists()
    again = stream(text.replace("20s", "30s"))
    assert again.code == 2
    assert "--lateness was 20s, and is now 30s" in again.stderr


def test_the_sample(tmp_path):
    def shop(*arguments):
        return run_command_text("stream", str(SHOP), *arguments, cwd=tmp_path, env={"WINDOW": "1s"})

    assert shop("--check").returncode == 0
    finished = shop("--max-events", "100", "--set", "source.rate=200")
    assert finished.returncode == 0, finished.stderr
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        kinds = database.execute("SELECT event_type, sum(events) FROM windows GROUP BY 1")
        found = dict(kinds)
    assert set(found) == {"login", "purchase", "view"}
    dropped = re.search(r"(\d+) dropped", finished.stderr)
    assert dropped
    assert sum(found.values()) == 100 - int(dropped[1])


def test_windows_on_standard_output(stream):
    text = '[source]\npath = "events.jsonl"\n[window]\nspec = "tumbling:5s"\ntime = "t"\n'
    assert short(stream(text)) == [(0, 5), (5, 5), (10, 2)]
    assert short(stream(text, "--set", 'window.spec="session:2s"')) == [(0, 12)]
    assert short(stream(text, "--max-events", "3", "--quiet")) == [(0, 3)]


def test_a_folder(stream, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "events.jsonl").rename(tmp_path / "in" / "a.jsonl")
    (tmp_path / "in" / "b.log").write_text("oops\n")
    text = '[source]\ntype = "folder"\npath = "in"\npattern = ["*.jsonl"]\n'
    text += '[window]\nspec = "tumbling:1m"\ntime = "t"\n'
    assert short(stream(text)) == [(0, 12)]


def test_files_and_folders_as_on_the_command_line(stream, tmp_path):
    events = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(events)
    (tmp_path / "in" / "b.log").write_text("oops\n")
    text = '[source]\npaths = ["in", "events.jsonl", "-"]\npattern = ["*.jsonl"]\n'
    text += '[window]\nspec = "tumbling:1m"\ntime = "t"\n'
    single = short(stream(text.replace('"in", ', "").replace(', "-"', "")))
    assert single == [(0, 12)]
    assert short(stream(text, stdin=events.decode())) == [(0, 36)]


def test_parts_of_a_window():
    def windows(**more):
        return str(parsed(with_window(**more)).window.windows)

    assert windows(spec="tumbling:5s") == "tumbling:5s"
    assert windows(kind="tumbling", size=0.5) == "tumbling:500ms"
    assert windows(kind="hopping", size="1m", every="10s") == "hopping:1m/10s"
    assert windows(kind="session", gap="30s") == "session:30s"


def test_a_single_source_or_several():
    document = {**SMALL, "source": [{"path": "a"}, {"type": "simulate", "rate": 5}]}
    assert [type(one).__name__ for one in parsed(document).sources] == [
        *("EventFileTable", "SimulatedTable")
    ]
    assert type(parsed({**SMALL, "source": {"paths": ["a"]}}).sources[0]).__name__ == (
        "EventFilesTable"
    )
    assert parsed(SMALL, "source.path=b.jsonl").sources[0].path == "b.jsonl"
    assert parsed(SMALL, "source.path=${P}", P="c").sources[0].path == "c"


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (
            {"window": {"spec": "tumbling:5s"}},
            ["source: is missing: the sources of events, read concurrently"],
        ),
        (
            {"source": {"path": "x"}},
            ["window: is missing: the windows of the events"],
        ),
        (
            {**SMALL, "source": []},
            ["source: is empty"],
        ),
        (
            {**SMALL, "source": {"type": "fil", "path": "x"}},
            ['source.type: must be one of files, file, folder, stdin, simulate, not "fi'],
        ),
        (
            {**SMALL, "source": {"path": "-"}},
            ['source.path: is standard input: write type = "stdin", without a path'],
        ),
        (
            {**SMALL, "source": {"path": "."}},
            ['source.path: is a folder: write type = "folder"'],
        ),
        (
            {**SMALL, "source": {"path": "x", "from_end": True}},
            ["source.from_end: needs follow = true"],
        ),
        (
            {**SMALL, "source": [{"path": "x"}, {"path": "x"}]},
            ["source[1]: is listed twice: each source is read once"],
        ),
        (
            {**SMALL, "source": [{"paths": ["x", "y"]}, {"path": "y"}]},
            ["source[1]: is listed twice: each source is read once"],
        ),
        (
            {**SMALL, "source": {"paths": ["x", "y", "x"]}},
            ["source.paths[2]: is listed twice: each source is read once"],
        ),
        (
            {**SMALL, "source": {"type": "files", "paths": []}},
            ["source.paths: is empty"],
        ),
        (
            {**SMALL, "source": {"type": "simulate", "rate": 0}},
            ["source.rate: is 0; it must be more than 0"],
        ),
        (
            with_window(size="5s", lateness="soon", agregates=["count"]),
            [
                'window.lateness: "soon" is not a duration: write seconds, or 500m',
                "window.agregates: unknown key (did you mean 'aggregates'?)",
                'window.kind: is missing: write spec = "tumbling:5s", or kind and size',
            ],
        ),
        (
            with_window(spec="tumbling:0s"),
            ["window.spec: 'tumbling:0s' has a length of zero; write tumbling:SIZE, hop"],
        ),
        (
            with_window(spec="tumbling:5s", size="5s"),
            ["window.size: is also given by spec: choose one"],
        ),
        (
            with_window(kind="session", size="5s"),
            [
                "window.size: is not for session windows, which need gap",
                'window.gap: is missing: a duration, such as "5s"',
            ],
        ),
        (
            with_window(kind="hopping", size="5s", every="7s"),
            ["window: 'hopping:5s/7s' leaves gaps between windows: EVERY is longer than SIZE"],
        ),
        (
            with_window(spec="tumbling:5s", aggregates=[]),
            ['window.aggregates: is empty: write ["count"]'],
        ),
        (
            with_window(spec="tumbling:5s", aggregates=["sum:v", "sum:v"]),
            ["window.aggregates[1]: is also called 'sum_v': write \"NAME=\" before it"],
        ),
        (
            with_window(spec="tumbling:5s", aggregates={"a b": "median:v"}),
            ["window.aggregates.\"a b\": 'median:v' is not an aggregate; write count, "],
        ),
        (
            with_window(spec="tumbling:5s", time="arrival", lateness="1s"),
            ["window.lateness: needs the events' own time, but time is arrival"],
        ),
        (
            with_window(spec="tumbling:5s", overflow_key="x"),
            ["window.overflow_key: is only for events that are grouped by a field: name one in by"],
        ),
        (
            {**SMALL, "transform": [{"type": "fields", "fields": {"tt": "t", "k": "k"}}]},
            ["window.time: the earlier fields transform makes no field 't' (did you mean 'tt'?)"],
        ),
        (
            {**SMALL, "transform": [{"type": "dedupe", "key": ["k"]}]},
            ["transform[0].type: must be one of fields, require, jq, call, schem"],
        ),
        (
            {**SMALL, "sink": {"to": "sqlite:///x.db"}},
            ["sink.table: is missing: a database needs the name of a table"],
        ),
        (
            {**SMALL, "sink": {"to": "x.jsonl", "table": "x"}},
            ["sink.table: is only for databases"],
        ),
        (
            {**SMALL, "sink": {"to": "out/"}},
            ["sink.to: is a folder, but windows need one file or table"],
        ),
        (
            {**SMALL, "checkpoint": {"every": "1s"}},
            ["checkpoint.path: is missing: the file of the checkpoint"],
        ),
    ],
)
def test_mistakes(document, found):
    """Each message starts with the key path; long messages are compared in part."""
    told = mistakes(document)
    assert len(told) == len(found)
    for message, begin in zip(told, found, strict=True):
        assert message.startswith(begin)


def test_all_mistakes_are_told_at_once_by_the_command(stream):
    text = '[source]\ntype = "simulate"\nrat = 5\n[window]\nspec = "daily"\n[sink]\nto = "x.xml"\n'
    for options in ((), ("--check",)):
        outcome = stream(text, *options)
        assert (outcome.code, outcome.stdout) == (2, "")
        assert outcome.stderr.count("\n") == 4
        assert "s.toml has 3 mistakes" in outcome.stderr
        assert "source.rat: unknown key (did you mean 'rate'?)" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ("--by", "k"),
            "--by is not allowed with a pipeline file: change it in the file, or with --set",
        ),
        (("--window", "tumbling:1m"), "--window is not allowed with a pipeline file"),
        (("--to", "x.jsonl", "--set", "sink.to=y.jsonl"), "--to and --set sink.to are the same"),
        (("--table", "t", "--to", "x.jsonl"), "sink.table: is only for databases"),
        (("--table", "t"), "sink.to: is missing"),
        (("--checkpoint-every", "1s"), "checkpoint.path: is missing"),
        (("--checkpoint-every", "soon", "--checkpoint", "c"), '"soon" is not a duration'),
        (("events.jsonl",), "names all its sources"),
        (("--set", "window.sice=5s"), "unknown key"),
        (("--set", "nonsense"), "KEY=VALUE"),
    ],
)
def test_options_beside_a_file(stream, options, why):
    text = '[source]\npath = "events.jsonl"\n[window]\nspec = "tumbling:5s"\ntime = "t"\n'
    outcome = stream(text, *options)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert why in " ".join(outcome.stderr.split())


def test_flags_replace_the_outputs_of_the_file(stream, tmp_path):
    text = """
[source]
path = "events.jsonl"
[window]
spec = "tumbling:5s"
time = "t"
[sink]
to = "sqlite:///a.db"
table = "windows"
[late]
to = "a.late.jsonl"
[checkpoint]
path = "a.checkpoint"
"""
    outcome = stream(
        text, "--to", "b.jsonl", "--late", "b.late.jsonl", "--dead-letter", "b.bad.jsonl",
        "--checkpoint", "b.checkpoint", "--checkpoint-every", "1m", "-q",
    )  # fmt: skip
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    made = {path.name for path in tmp_path.iterdir()}
    assert {"b.jsonl", "b.checkpoint"} <= made
    assert not any(name.startswith("a.") for name in made)
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 3
    outcome = stream(text, "--to", "sqlite:///c.db", "--table", "other", "--checkpoint", "c", "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    with closing(sqlite3.connect(tmp_path / "c.db")) as database:
        assert database.execute("SELECT sum(count) FROM other").fetchone() == (12,)
    # Variables are for streams without a file, as those of the other options are.
    outcome = stream(text, "--check", ASYNCBATCH_STREAM_TO="x.nothing")
    assert (outcome.code, "sqlite:///a.db" in outcome.stdout) == (0, True)


def test_which_command_a_file_is_for(stream):
    etl = 'name = "n"\n[[source]]\ntype = "files"\npaths = ["x"]\n[sink]\nto = "x.jsonl"\n'
    outcome = stream(etl)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "has no [window] table: run it with `asyncbatch etl s.toml`" in outcome.stderr
    outcome = stream(SHOP.read_text(), command="etl")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "has a [window] table: run it with `asyncbatch stream s.toml`" in outcome.stderr
    with pytest.raises(PipelineFileError, match="asyncbatch stream"):
        parse_pipeline_file(SMALL, "s.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PipelineFileError, match="No such file"):
        load_stream_file(str(tmp_path / "no.toml"))
    finished = run_command_text("stream", "x.jsonl", "--check", cwd=tmp_path)
    assert finished.returncode == 2
    assert "need a pipeline file" in finished.stderr


def test_a_function_and_what_it_prints(stream, tmp_path):
    (tmp_path / "own.py").write_text(
        "print('imported')\n\ndef clean(event):\n    print('called')\n    return event\n"
    )
    text = """
[source]
path = "events.jsonl"
[[transform]]
type = "call"
function = "own.py:clean"
[window]
spec = "tumbling:1m"
time = "t"
"""
    outcome = stream(text)
    assert short(outcome) == [(0, 12)]
    assert "imported" in outcome.stderr


def test_the_schema_takes_what_we_take(tmp_path):
    printed = subprocess.run(
        [*COMMAND, "stream", "--print-schema"], check=True, capture_output=True, text=True,
        cwd=tmp_path, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    validator = jsonschema_rs.validator_for(json.loads(printed.stdout))
    documents = [
        tomllib.loads(FULL),
        tomllib.loads(SHOP.read_text()),
        SMALL,
        {**SMALL, "source": [{"path": "a", "follow": True}, {"type": "simulate", "rate": 5}]},
        with_window(kind="tumbling", size=0.5, aggregates=["n=count"], lateness="1s"),
    ]
    for document in documents:
        assert validator.is_valid(document), list(validator.iter_errors(document))
    for document in ({}, {**SMALL, "source": {"type": "fil"}}, with_window(spec=5)):
        assert not validator.is_valid(document)
