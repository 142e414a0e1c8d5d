"""The targets of windows, and streams that end in any way and are resumed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, suppress
from sys import float_info

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.config.job import StreamSettings
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.windows import window_lines
from asyncbatch.sources.base import LiveChunk
from asyncbatch.state.checkpoint import StreamState
from asyncbatch.windows.aggregates import parse_aggregate
from asyncbatch.windows.spec import parse_window
from tests.chaos import streams as chaos_stream
from tests.commands import PATIENCE, CommandProcess, environment, run_command
from tests.processes import wait_until, wait_until_still, waiting_bytes

BY_KIND = ("--time", "t", "--by", "k")
SUMS = ("--agg", "count", "--agg", "sum:v")
KEPT = ("--checkpoint", "c.json", "--checkpoint-every", "20ms")


def at(second, kind="a", **more):
    return json.dumps({"t": f"2026-01-01T00:00:{second:09.6f}Z", "k": kind, **more}) + "\n"


@pytest.fixture
def stream(tmp_path):
    """Run `asyncbatch stream` to its end; return its exit status, stdout and stderr."""

    def _stream(*arguments, stdin=""):
        finished = run_command("stream", *map(str, arguments), cwd=tmp_path, stdin=stdin.encode())
        return finished.returncode, finished.stdout.decode(), finished.stderr.decode()

    return _stream


def give(process, text):
    process.stdin.write(text.encode())
    process.stdin.flush()


def rows(path, table="w", order="window_start, window_key"):
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY {order}")]


# --- targets

EVENTS = at(1, v=2) + at(2, "b", v=0.5) + at(3, v=3) + at(7, v=1)
LINES = [("00", "a", 2, 5), ("00", "b", 1, 0.5), ("05", "a", 1, 1)]


@pytest.mark.parametrize("name", ["w.jsonl", "w.ndjson", "w.jsonl.gz", "w.jsonl.zst"])
def test_lines_go_into_a_file(stream, tmp_path, name):
    (tmp_path / name).write_bytes(b"from before\n")
    code, output, errors = stream("-", *BY_KIND, *SUMS, "--to", name, stdin=EVENTS)
    assert (code, output) == (0, "")
    assert "Processed 4 events" in errors
    data = (tmp_path / name).read_bytes()
    compression = compression_by_name(name)
    if compression:
        data = b"".join(compression.chunks(io.BytesIO(data), 1000))
    windows = [json.loads(line) for line in data.splitlines()]
    found = [
        (one["window_start"][17:-1], one["key"]["k"], *one["aggregates"].values())
        for one in windows
    ]
    assert found == LINES
    assert {one["event"] for one in windows} == {"window"}


def test_lines_are_there_as_soon_as_their_window_is_over(live, tmp_path):
    process = live("-", *BY_KIND, "--to", "w.jsonl")
    give(process, at(1) + at(6))
    wait_until(lambda: (tmp_path / "w.jsonl").exists() and (tmp_path / "w.jsonl").read_text())
    assert (tmp_path / "w.jsonl").read_text().count("\n") == 1
    assert process.poll() is None


def test_outputs_that_logrotate_truncates_have_only_later_lines(live, stream, tmp_path):
    events, windows, dead = (tmp_path / name for name in ("e.jsonl", "w.jsonl", "d.jsonl"))
    options = (events.name, *BY_KIND, "--to", windows.name, "--dead-letter", dead.name, *KEPT)
    events.write_text(at(1) + "[1]\n" + at(6))
    process = live(*options, "--follow")
    wait_until(lambda: windows.exists() and windows.read_text() and dead.read_text())
    os.truncate(windows, 0)  # as copytruncate does
    os.truncate(dead, 0)
    with events.open("a") as file:
        file.write("[2]\n" + at(11))
    wait_until(windows.read_text)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert stream(*options)[:2] == (0, "")  # resumes, with its last window
    starts = [json.loads(line)["window_start"][17:-1] for line in windows.read_text().splitlines()]
    assert starts == ["05", "10"]
    assert [json.loads(line)["data"] for line in dead.read_text().splitlines()] == [[2]]


@pytest.mark.parametrize(("name", "delimiter"), [("w.csv", ","), ("w.tsv", "\t")])
def test_values_go_into_a_file(stream, tmp_path, name, delimiter):
    assert stream("-", *BY_KIND, *SUMS, "--to", name, stdin=EVENTS)[0] == 0
    with (tmp_path / name).open(newline="") as file:
        found = list(csv.DictReader(file, delimiter=delimiter))
    assert found[0] == {
        "window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T00:00:05Z",
        "window_key": '{"k":"a"}', "k": "a", "count": "2", "sum_v": "5", "partial": "false",
    }  # fmt: skip
    assert [(row["window_start"][17:-1], row["k"]) for row in found] == [one[:2] for one in LINES]


def test_rows_go_into_sqlite_and_replace_themselves(stream, tmp_path):
    target = ("--to", "sqlite:///w.db", "--table", "w")
    for more in ("", at(9, v=1)):
        code, output, _ = stream("-", *BY_KIND, *SUMS, *target, stdin=EVENTS + more)
        assert (code, output) == (0, "")
    found = rows(tmp_path / "w.db")
    assert [(row["k"], row["count"], row["sum_v"]) for row in found] == [
        ("a", 2, 5), ("b", 1, 0.5), ("a", 2, 2),
    ]  # fmt: skip
    assert found[0] == {
        "window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T00:00:05Z",
        "window_key": '{"k":"a"}', "k": "a", "count": 2, "sum_v": 5, "partial": 0,
    }  # fmt: skip


def test_rows_go_into_duckdb(stream, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    target = ("--to", "duckdb:///w.duckdb", "--table", "w")
    for _ in range(2):
        assert stream("-", *BY_KIND, *SUMS, *target, stdin=EVENTS)[0] == 0
    with duckdb.connect(str(tmp_path / "w.duckdb")) as database:
        found = database.execute(
            "SELECT second(window_start), k, count, sum_v, partial FROM w ORDER BY 1, 2"
        ).fetchall()
        types = dict(database.execute("SELECT column_name, data_type FROM duckdb_columns()"
                                      " WHERE table_name = 'w'").fetchall())  # fmt: skip
    assert found == [(0, "a", 2, 5, False), (0, "b", 1, 0.5, False), (5, "a", 1, 1, False)]
    assert (types["window_start"], types["window_end"]) == ("TIMESTAMP", "TIMESTAMP")
    assert (types["sum_v"], types["partial"]) == ("DOUBLE", "BOOLEAN")


def test_rows_go_into_postgres(stream, server):
    server.execute("CREATE DATABASE windows")
    target = ("--to", server.url("windows"), "--table", "w")
    for _ in range(2):
        code, output, errors = stream("-", *BY_KIND, *SUMS, *target, stdin=EVENTS)
        assert (code, output) == (0, ""), errors
    query = "SELECT extract(second from window_start)::int, k, count, sum_v, partial FROM w"
    query += " ORDER BY 1, 2"
    found = [tuple(row) for row in server.execute(query, "windows")]
    assert found == [(0, "a", 2, 5, False), (0, "b", 1, 0.5, False), (5, "a", 1, 1, False)]
    query = "SELECT data_type FROM information_schema.columns WHERE column_name LIKE 'window_%'"
    types = [row[0] for row in server.execute(query + " AND table_name = 'w'", "windows")]
    assert sorted(types) == ["text", *["timestamp with time zone"] * 2]


_RECIPE = ("count", "sum:v", "avg:v", "low=min:v", "max:v", "stddev:v", "p95:v")
_NUMBERS = {
    "sqlite": ("INTEGER", "REAL"),
    "duckdb": ("BIGINT", "DOUBLE"),
    "postgres": ("bigint", "double precision"),
}


def _columns_and_rows(kind, name, folder, server):
    """Return the columns of a table of windows with their types, and its rows."""
    names = "count, sum_v, avg_v, low, max_v, stddev_v FROM"
    if kind == "postgres":
        columns = server.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            f" WHERE table_name = '{name}' ORDER BY ordinal_position", "recipe",
        )  # fmt: skip
        found = server.execute(f"SELECT {names} {name} ORDER BY window_start", "recipe")
        return [tuple(row) for row in columns], [tuple(row) for row in found]
    duckdb = None if kind == "sqlite" else pytest.importorskip("duckdb")
    path = folder / ("recipe.duckdb" if duckdb else "recipe.db")
    with closing(duckdb.connect(str(path)) if duckdb else sqlite3.connect(path)) as database:
        columns = database.execute(
            f"SELECT name, type FROM pragma_table_info('{name}') ORDER BY cid"
        ).fetchall()
        found = database.execute(f"SELECT {names} {name} ORDER BY window_start").fetchall()
    return columns, found


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres"])
def test_the_columns_of_a_table_are_those_of_the_recipe(stream, tmp_path, server, kind):
    """Whatever the windows of a run hold: no deviation yet, integers only, or fractions first."""
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    if kind == "postgres":
        server.execute("CREATE DATABASE recipe")
    target = {
        "sqlite": "sqlite:///recipe.db",
        "duckdb": "duckdb:///recipe.duckdb",
        "postgres": server.url("recipe"),
    }[kind]
    windows = [at(1, v=1), at(6, v=2) + at(7, v=4), at(11, v=2.5) + at(12, v=3)]
    runs = {
        "together": ["".join(windows)], "alone": windows, "backwards": windows[::-1],
        "whole": windows[:1], "split": windows[2:],
    }  # fmt: skip
    options = [word for one in _RECIPE for word in ("--agg", one)]
    found = {}
    for name, texts in runs.items():
        for text in texts:
            code, _, errors = stream(
                "-", *BY_KIND, *options, "--to", target, "--table", name, stdin=text
            )
            assert code == 0, errors
        found[name] = _columns_and_rows(kind, name, tmp_path, server)
    integer, real = _NUMBERS[kind]
    names = [
        "window_start", "window_end", "window_key", "k", "count", "sum_v", "avg_v", "low", "max_v",
        "stddev_v", "p95_v", "partial",
    ]  # fmt: skip
    for name, (columns, _) in found.items():
        assert [column for column, _ in columns] == names, name
        number = integer if name == "whole" else real  # of sums and extremes: widened if need be
        types = [integer, number, real, number, number, real, real]
        assert [type_ for _, type_ in columns[4:-1]] == types, name
    expected = [
        (1, 1, 1, 1, 1, None),
        (2, 6, 3, 2, 4, 2**0.5),
        (2, 5.5, 2.75, 2.5, 3, 0.125**0.5),
    ]
    for name in ("together", "alone", "backwards"):
        assert found[name][1] == expected, name


def test_rows_go_into_parquet_at_the_end(stream, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert stream("-", *BY_KIND, *SUMS, "--to", "w.parquet", stdin=EVENTS)[0] == 0
    found = parquet.read_table(tmp_path / "w.parquet").to_pylist()
    assert [(row["k"], row["count"], row["sum_v"]) for row in found] == [one[1:] for one in LINES]


def test_standard_output_by_name(stream):
    plain = stream("-", *BY_KIND, stdin=EVENTS)
    assert stream("-", *BY_KIND, "--to", "-", stdin=EVENTS)[:2] == plain[:2]
    assert plain[1].count("\n") == 3


def test_a_stream_without_groups(stream, tmp_path):
    target = ("--to", "sqlite:///w.db", "--table", "w")
    for _ in range(2):
        assert stream("-", "--time", "t", *target, stdin=EVENTS)[0] == 0
    found = rows(tmp_path / "w.db", order="window_start")
    assert [row["count"] for row in found] == [3, 1]
    assert "window_key" not in found[0]


def test_keys_of_several_types_stay_apart(stream, tmp_path, server):
    """One column cannot distinguish these keys, in any order; the column of their JSON can."""
    server.execute("CREATE DATABASE keys")
    kinds = [True, 1, "1", "true", 1.5, 2, "x", 2**70]
    text = "".join(at(1 + number / 10, kind) for number, kind in enumerate(kinds))
    for target in ("sqlite:///w.db", server.url("keys")):
        for window in ("tumbling:5s", "session:100ms"):
            table = window[:7]
            for _ in range(2):
                code, _, errors = stream(
                    "-", *BY_KIND, "--window", window, "--to", target, "--table", table, stdin=text
                )
                assert code == 0, errors
            if target.startswith("sqlite"):
                found = [row["window_key"] for row in rows(tmp_path / "w.db", table)]
            else:
                query = f'SELECT window_key FROM "{table}"'
                found = [row[0] for row in server.execute(query, "keys")]
            assert sorted(found) == sorted(f'{{"k":{json.dumps(kind)}}}' for kind in kinds)


def test_sums_stay_numbers(stream, tmp_path):
    """Integers beyond the range of the database are kept, too."""
    text = at(1, v=10**30) + at(6, v=3) + at(11, v=2**60) + at(16, v=0.5)
    target = ("--to", "sqlite:///w.db", "--table", "w")
    assert stream("-", *BY_KIND, "--agg", "sum:v", *target, stdin=text)[0] == 0
    found = [row["sum_v"] for row in rows(tmp_path / "w.db")]
    assert found == [1e30, 3.0, float(2**60), 0.5]
    assert set(map(type, found)) == {float}


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_beyond_the_doubles_become_the_nearest(stream, tmp_path, sign):
    aggregates = ("--agg", "sum:v,min:v,max:v,avg:v")
    nearest = [sign * float_info.max] * 4
    lines = at(1, v=sign * (10**309 - 1))
    assert stream("-", "--time", "t", *aggregates, "--to", "w.csv", stdin=lines)[0] == 0
    [_, cells] = csv.reader((tmp_path / "w.csv").read_text().splitlines())
    assert [float(cell) for cell in cells[2:6]] == nearest
    target = ("--to", "sqlite:///w.db", "--table", "w")
    assert stream("-", "--time", "t", *aggregates, *target, stdin=lines)[0] == 0
    [row] = rows(tmp_path / "w.db", order="window_start")
    assert list(row.values())[2:6] == nearest


def test_times_sort_as_texts_do(stream, tmp_path):
    text = at(1.5) + at(2) + at(3.25)
    target = ("--to", "sqlite:///w.db", "--table", "w")
    assert stream("-", *BY_KIND, "--window", "session:250ms", *target, stdin=text)[0] == 0
    found = [row["window_start"][17:] for row in rows(tmp_path / "w.db")]
    assert found == ["01.500000Z", "02.000000Z", "03.250000Z"]


def test_rows_that_a_database_refuses_are_told(stream, tmp_path):
    with closing(sqlite3.connect(tmp_path / "w.db")) as database:
        database.execute(
            "CREATE TABLE w (window_start TEXT, window_end TEXT, window_key TEXT, k TEXT,"
            " count INTEGER CHECK (count < 2), partial INTEGER,"
            " PRIMARY KEY (window_start, window_key))"
        )
    code, _, errors = stream("-", *BY_KIND, "--to", "sqlite:///w.db", "--table", "w", stdin=EVENTS)
    assert code == 1
    assert 'refused  window 2026-01-01T00:00:00Z {"k":"a"}: CHECK constraint failed' in errors
    assert "1 refused by the target" in errors
    assert [row["k"] for row in rows(tmp_path / "w.db")] == ["b", "a"]


def test_a_target_that_is_lost(stream, tmp_path):
    (tmp_path / "w.jsonl").symlink_to("/dev/full")
    code, _, errors = stream("-", *BY_KIND, "--to", "w.jsonl", stdin=EVENTS)
    assert code == 1
    assert "cannot continue: cannot write w.jsonl: No space left" in errors


def test_a_target_that_is_lost_while_nothing_comes(live, tmp_path):
    (tmp_path / "w.jsonl").symlink_to("/dev/full")
    process = live("-", *BY_KIND, "--to", "w.jsonl")
    give(process, at(1) + at(6))
    assert process.wait(timeout=PATIENCE) == 1  # the pipe stays open
    assert b"No space left" in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--to", "out/"), "not into a folder; write out/windows.jsonl"),
        (("--to", "w.txt"), "unknown kind of target"),
        (("--to", "sqlite:///w.db"), "needs --table"),
        (("--to", "w.jsonl", "--table", "w"), "for databases"),
        (("--table", "w"), "--table needs --to"),
        (("--to", "no/such/w.jsonl"), "cannot write"),
        (("--to", "sqlite:///no/such/w.db", "--table", "w"), "cannot use"),
        (("--to", "w.csv", "--agg", "k=count"), "two columns would be called 'k'"),
        (("--to", "sqlite:///w.db", "--table", "w", "--agg", "Partial=count"), "two columns"),
        (("--to", "w.parquet", "--checkpoint", "c.json"), "complete only at its end"),
        (("--to", "fifo.jsonl", "--checkpoint", "c.json"), "is not a regular file"),
        (("--late", "fifo.jsonl", "--checkpoint", "c.json"), "is not a regular file"),
        (("--checkpoint-every", "1s"), "needs --checkpoint"),
        (("--checkpoint", "no/such/c.json"), "there is no folder no/such"),
        (("--checkpoint", "other.json"), "is not a checkpoint, but has content"),
        (("--checkpoint", "fifo.jsonl"), "--checkpoint fifo.jsonl is not a regular file"),
        (("--checkpoint", "/dev/null"), "--checkpoint /dev/null is not a regular file"),
        (("--checkpoint", "folder"), "--checkpoint folder is not a regular file"),
    ],
)
def test_wrong_usage(stream, tmp_path, arguments, why):
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.json").write_text('{"precious": 1}')
    code, output, errors = stream("-", *BY_KIND, *arguments)
    assert (code, output) == (2, "")
    assert why in " ".join(errors.split())
    assert (tmp_path / "other.json").read_text() == '{"precious": 1}'


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("e.jsonl", "--to", "e.jsonl"), "--to e.jsonl would be read as input: it is in e.jsonl"),
        (("e.jsonl", "--late", "link.jsonl"), "would be read as input"),
        ((".", "--to", "w.jsonl"), "would be read as input: it is in ."),
        (
            ("e.jsonl", "--to", "w.jsonl", "--late", "./w.jsonl"),
            "--to and --late name the same file: w.jsonl",
        ),
        (
            ("e.jsonl", "--checkpoint", "w.jsonl", "--dead-letter", "w.jsonl"),
            "--checkpoint and --dead-letter name the same file: w.jsonl",
        ),
        (("e.jsonl", "--to", "sqlite:///e.jsonl", "--table", "w"), "would be read as input"),
        (("e.jsonl", "--late", "hard.jsonl"), "would be read as input"),
        (("links", "--late", "e.jsonl"), "--late e.jsonl would be read as input"),
        (("e.jsonl", "--checkpoint", "w.json", "--report", "w.json"), "name the same file: w.json"),
        (("e.jsonl", "--late", "w.log", "--log-file", "w.log"), "name the same file: w.log"),
        (("e.jsonl", "--schema", "s.json", "--late", "s.json"), "s.json is read by this run"),
        (("e.jsonl", "--late", "asyncbatch.toml"), "asyncbatch.toml is read by this run"),
        (("e.jsonl", "--report", "e.jsonl"), "--report e.jsonl would be read as input"),
        (("in", "--report", "in/r.jsonl"), "--report in/r.jsonl would be read as input"),
        (("e.jsonl", "--to", "hard.jsonl"), "--to hard.jsonl would be read as input"),
        (("in", "--to", "hard.jsonl"), "would be read as input: it is in in"),
        (("in", "--late", "w.jsonl"), "--late w.jsonl would be read as input: it is in in"),
        (("-", "--to", "e.jsonl"), "would be read as input: it is in standard input"),
        (("e.jsonl", "--to", "w.jsonl", "--report", "w.jsonl"), "name the same file"),
        (("e.jsonl", "--late", "w.jsonl", "--report", "./w.jsonl"), "name the same file"),
        (("e.jsonl", "--checkpoint", "w.jsonl", "--report", "w.jsonl"), "name the same file"),
        (("e.jsonl", "--to", "new.jsonl", "--log-file", "new.jsonl"), "name the same file"),
        (("e.jsonl", "--late", "w.jsonl", "--to", "again.jsonl"), "name the same file"),
    ],
)
def test_no_file_is_written_over(tmp_path, arguments, why):
    windows = '{"event":"window"}\n'
    (tmp_path / "in").mkdir()
    (tmp_path / "e.jsonl").write_text(EVENTS)
    (tmp_path / "link.jsonl").symlink_to("e.jsonl")
    (tmp_path / "hard.jsonl").hardlink_to(tmp_path / "e.jsonl")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one.jsonl").symlink_to("../e.jsonl")
    (tmp_path / "s.json").write_text("{}")
    (tmp_path / "asyncbatch.toml").write_text("[stream]\nworkers = 0\n")
    (tmp_path / "in/hard.jsonl").hardlink_to(tmp_path / "e.jsonl")
    (tmp_path / "w.jsonl").write_text(windows)
    (tmp_path / "again.jsonl").hardlink_to(tmp_path / "w.jsonl")
    (tmp_path / "in/w.jsonl").symlink_to("../w.jsonl")
    with (tmp_path / "e.jsonl").open("rb") as events:
        process = CommandProcess(
            ["stream", *arguments, *BY_KIND], cwd=tmp_path, env=environment(),
            stdin=events, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert why in " ".join(errors.decode().split())
    assert (tmp_path / "e.jsonl").read_text() == EVENTS
    assert (tmp_path / "w.jsonl").read_text() == windows
    assert sorted(os.listdir(tmp_path / "in")) == ["hard.jsonl", "w.jsonl"]


@pytest.mark.parametrize("more", [(), ("--check",)])
@pytest.mark.parametrize(
    ("sink", "options"),
    [
        ("w.jsonl", ("--report", "w.jsonl")),
        ("w.jsonl", ("--log-file", "w.jsonl")),
        ("in/w.csv", ()),
    ],
)
def test_a_check_tells_of_files_that_are_written_over(stream, tmp_path, sink, options, more):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/e.jsonl").write_text(EVENTS)
    (tmp_path / "s.toml").write_text(
        '[source]\npaths = ["in"]\n[window]\nspec = "tumbling:5s"\ntime = "t"\n'
        f'[sink]\nto = "{sink}"\n'
    )
    code, _, errors = stream("s.toml", *options, *more)
    assert code == 2
    assert "name the same file" in errors or "would be read as input" in errors


def test_a_terminal_shows_what_goes_into_a_target(tmp_path):
    (tmp_path / "e.jsonl").write_text(EVENTS)
    main, side = os.openpty()
    process = CommandProcess(
        ["stream", "e.jsonl", *BY_KIND, "--to", "w.jsonl"],
        stdout=side, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(CI=""),
    )  # fmt: skip
    os.close(side)
    shown = b""
    with suppress(OSError):  # the other end was closed
        while chunk := os.read(main, 65536):
            shown += chunk
    os.close(main)
    process.communicate()
    assert process.returncode == 0
    assert b"00:00:00 - 00:00:05" in shown
    assert b"window_start" not in shown
    assert (tmp_path / "w.jsonl").read_text().count("\n") == 3


# --- slow targets


def test_a_reader_that_does_not_read_holds_back_the_input(live, tmp_path):
    os.mkfifo(tmp_path / "w.jsonl")
    process = live("-", "--time", "t", "--window", "tumbling:1ms", "--to", "w.jsonl")
    count, written = 200_000, [0]

    def feed():
        for start in range(0, count, 1000):
            lines = (
                f'{{"t": {1_700_000_000_000 + number}}}\n' for number in range(start, start + 1000)
            )
            give(process, "".join(lines))
            written[0] = start + 1000
        process.stdin.close()

    reader = os.open(tmp_path / "w.jsonl", os.O_RDONLY)
    feeder = threading.Thread(target=feed)
    feeder.start()
    wait_until(lambda: waiting_bytes(reader))
    assert wait_until_still(lambda: written[0]) < count
    assert psutil.Process(process.pid).memory_info().rss < 150_000_000
    with os.fdopen(reader, "rb") as lines:
        starts = [json.loads(line)["window_start"] for line in lines]
    feeder.join()
    assert len(starts) == len(set(starts)) == count
    assert process.wait(timeout=PATIENCE) == 0


def test_a_database_that_somebody_has_locked_is_waited_for(live, tmp_path):
    process = live("-", *BY_KIND, "--to", "sqlite:///w.db", "--table", "w")
    give(process, at(1) + at(6))
    wait_until(lambda: (tmp_path / "w.db").exists() and has_rows(tmp_path / "w.db"))
    with closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        give(process, at(11) + at(16))
        wait_until(lambda: not waiting_bytes(process.stdin))
        time.sleep(1)  # In which it meets the lock. Nothing depends on it.
        assert len(rows(tmp_path / "w.db")) == 1
        other.execute("COMMIT")
    process.stdin.close()
    assert process.wait(timeout=PATIENCE) == 0
    assert [row["window_start"][17:-1] for row in rows(tmp_path / "w.db")] == [
        "00", "05", "10", "15",
    ]  # fmt: skip


def has_rows(path):
    try:
        return bool(rows(path))
    except sqlite3.OperationalError:
        return False


# --- the state


@pytest.fixture(scope="module")
def deep():
    """Do the imports of a stream first: hypothesis warns about them in a test."""
    allow_deep_nesting()


_AGGREGATES = (
    "count",
    "sum:v",
    "avg:v",
    "min:v",
    "max:v",
    "stddev:v",
    "distinct:v",
    "p50:v",
    "p99:w",
)
_VALUES = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([0.1, -0.0, 1e300, -1e308, 5e-324, 10**25, 2.5, 1e16]),
    st.floats(allow_nan=False, allow_infinity=False),
)
_EVENT = st.tuples(
    st.integers(0, 8_000_000),
    st.sampled_from(["a", "é", 1, 1.5, True, False, "1", 10**20]),
    _VALUES,
)
_WINDOWS = ["tumbling:1s", "hopping:2s/1s", "hopping:3s/2s", "session:500ms"]


@pytest.mark.usefixtures("deep")
@given(
    events=st.lists(_EVENT, min_size=1, max_size=60),
    window=st.sampled_from(_WINDOWS),
    cuts=st.lists(st.floats(0, 1), max_size=5),
    in_order=st.booleans(),
    by=st.sampled_from([("k",), (), ("k", "w")]),
)
def test_writing_down_and_going_on_changes_nothing(events, window, cuts, in_order, by):
    if in_order:
        events = sorted(events, key=lambda event: event[0])
    lines = [
        json.dumps({"t": 1_767_225_600_000_000 + time_, "k": kind, "v": value, "w": value}) + "\n"
        for time_, kind, value in events
    ]
    data = "oops\n".join(lines).encode()
    settings = StreamSettings(
        parse_window(window),
        tuple(map(parse_aggregate, _AGGREGATES)),
        by=by,
        time="t",
        lateness=300_000,
        max_keys=3,
        overflow_key="other" if by else None,
        letters=True,
    )

    def run(places):
        late, rejected = list[bytes](), list[bytes]()

        def make():
            made = StreamCore(settings, late=late.append, reject=rejected.append)
            made.join("s")
            return made

        stream, output, start = make(), b"", 0
        for end in places:
            closed = stream.feed("s", LiveChunk("s", data[start:end], position=[end]))
            output += window_lines(stream.schema, closed)
            state = msgspec.json.encode(stream.state())
            stream, start = make(), end
            stream.restore(msgspec.json.decode(state, type=StreamState))
        closed = stream.feed(
            "s", LiveChunk("s", data[start:], position=[len(data)], ends_file=True)
        )
        closed += stream.finish(partial=False)
        output += window_lines(stream.schema, closed)
        return output, b"".join(late), b"".join(rejected), stream.tally

    assert run(sorted(int(cut * len(data)) for cut in cuts)) == run([])


def test_several_sources_are_written_down(tmp_path):
    """The watermark waits for each source that has not left, and for no other."""
    settings = StreamSettings(parse_window("tumbling:1s"), (parse_aggregate("count"),), time="t")

    def make():
        made = StreamCore(settings)
        for name in "abc":
            made.join(name)
        return made

    def chunk(second):
        return LiveChunk("x", f'{{"t": {second}}}\n'.encode(), position=[second])

    first = make()
    first.feed("a", chunk(10))
    first.feed("b", chunk(20))
    first.feed("c", chunk(12))
    assert not first.leave("c")
    second = make()
    state = msgspec.json.encode(first.state())
    second.restore(msgspec.json.decode(state, type=StreamState))
    assert second.has_left("c")
    for one in (first, second):
        assert [window.start for window in one.feed("a", chunk(15))] == [10_000_000, 12_000_000]
    assert msgspec.json.encode(first.state()) == msgspec.json.encode(second.state())


# --- streams that end early


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A file of events out of order, with late events and invalid lines."""
    path = tmp_path_factory.mktemp("long") / "events.jsonl"
    chaos_stream.make_input(path, 4000, random.Random(7))
    return path


CASES = [
    ("sqlite", "session", "called"),
    ("sqlite", "hopping", "called"),
    ("jsonl", "tumbling", "called"),
    ("jsonl.gz", "session", "called"),
]


@pytest.mark.parametrize("names", CASES, ids=" ".join)
def test_killed_streams_lose_and_double_nothing(tmp_path, long, names):
    outcome = chaos_stream.torment(tmp_path, long, names, 3, random.Random(str(names)))
    assert (outcome.kills, outcome.wrong) == (3, 0)


def test_killed_streams_into_postgres(tmp_path, long):
    outcome = chaos_stream.torment(
        tmp_path, long, ("postgres", "session", "called"), 3, random.Random(1)
    )
    assert (outcome.kills, outcome.wrong) == (3, 0)


@pytest.mark.parametrize("window", ["tumbling:10s", "hopping:4s/2s", "session:1s"])
@pytest.mark.parametrize("target", ["w.jsonl", "w.jsonl.gz", "w.csv", "sqlite:///w.db"])
def test_a_stream_in_many_small_parts(stream, tmp_path, window, target):
    """Each run ends after some events, within a chunk, and emits the open windows as partial."""
    pick = random.Random(3)
    text = "".join(
        at(max(0.0, number / 4 - pick.random() * 1.5), pick.choice("ab"), v=number)
        for number in range(60)
    )
    (tmp_path / "e.jsonl").write_text(text)
    given_ = ("e.jsonl", *BY_KIND, *SUMS, "--agg", "p50:v", "--window", window)
    options = (*given_, "--lateness", "1s", "--late", "late.jsonl")
    table = ("--table", "w") if "sqlite" in target else ()

    def found():
        late = (tmp_path / "late.jsonl").read_bytes()
        if table:
            return late, rows(tmp_path / "w.db")
        data = (tmp_path / target).read_bytes()
        return late, gzip.decompress(data) if target.endswith(".gz") else data

    assert stream(*options, "--to", target, *table)[0] == 0
    expected = found()
    (tmp_path / target.removeprefix("sqlite:///")).unlink()
    parts = 0
    errors = "Stopped"
    while "Stopped" in errors:
        code, _, errors = stream(*options, "--to", target, *table, *KEPT, "--max-events", "13")
        assert code == 0, errors
        parts += 1
        if "Stopped" in errors and table:
            assert any(row["partial"] for row in rows(tmp_path / "w.db"))
    assert parts == 5
    assert found() == expected
    assert "60 since the stream began" in errors


def test_a_signal_and_on(live, stream, tmp_path):
    """The stream is slow from the second window on until it is stopped."""
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        "def f(e):\n"
        "    if e['n'] > 60 and os.path.exists('slow'):\n"
        "        time.sleep(0.2)\n"
        "    return e\n"
    )
    (tmp_path / "slow").touch()
    long = "x" * 8000  # so that not all of the file is read when the first window is over
    (tmp_path / "e.jsonl").write_text("".join(at(n / 10, v=1, n=n, x=long) for n in range(500)))
    # The jobs of fast events are large: they take long when the events become slow.
    windows = ("e.jsonl", *BY_KIND, *SUMS, "--call", "slow.py:f", "--to", "w.jsonl", *KEPT)
    options = (*windows, "--grace", "100")
    process = live(*options)
    wait_until(lambda: (tmp_path / "w.jsonl").exists() and (tmp_path / "w.jsonl").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 0
    (tmp_path / "slow").unlink()
    stopped = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert stopped[-1]["partial"]
    code, _, errors = stream(*options)
    assert code == 0
    assert "Resuming after" in errors
    rows = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert [one["aggregates"]["count"] for one in rows] == [50] * 10
    assert not any(one.get("partial") for one in rows)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stop_does_not_wait_for_slow_programs(live, stream, tmp_path, is_async):
    """Events whose transforms have not started are given back, and resumed."""
    wait = "await asyncio.sleep" if is_async else "time.sleep"
    (tmp_path / "slow.py").write_text(
        "import asyncio, os, time\n"
        f"{'async ' if is_async else ''}def f(e):\n"
        "    if os.path.exists('slow'):\n"
        "        open('begun', 'w').close()\n"
        f"        {wait}(0.2)\n"
        "    return e\n"
    )
    (tmp_path / "slow").touch()
    (tmp_path / "e.jsonl").write_text("".join(at(n / 100, v=1) for n in range(5000)))
    options = ("e.jsonl", *BY_KIND, *SUMS, "--call", "slow.py:f", "--to", "w.jsonl", *KEPT)
    process = live(*options, "--call-concurrency", "5")
    wait_until((tmp_path / "begun").exists)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert b"that arrived, not processed" in errors
    (tmp_path / "slow").unlink()
    code, _, errors = stream(*options)
    assert code == 0, errors
    windows = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert [one["aggregates"]["count"] for one in windows] == [500] * 10
    assert not any(one.get("partial") for one in windows)


def test_a_stream_that_has_come_to_its_end(stream, tmp_path):
    """A resumed stream finds nothing new; new events of closed windows are late."""
    (tmp_path / "e.jsonl").write_text(at(1) + at(6))
    options = ("e.jsonl", *BY_KIND, "--to", "w.jsonl", *KEPT, "--late", "late.jsonl")
    assert stream(*options)[0] == 0
    before = (tmp_path / "w.jsonl").read_bytes()
    code, _, errors = stream(*options)
    assert (code, (tmp_path / "w.jsonl").read_bytes()) == (0, before)
    assert "Processed 0 events" in errors
    with (tmp_path / "e.jsonl").open("a") as file:
        file.write(at(7) + at(11))
    code, _, errors = stream(*options)
    assert code == 0
    added = (tmp_path / "w.jsonl").read_bytes().removeprefix(before)
    assert [json.loads(line)["window_start"][17:-1] for line in added.splitlines()] == ["10"]
    assert (tmp_path / "late.jsonl").read_text() == at(7)


def test_what_cannot_be_read_again_goes_on_all_the_same(stream, tmp_path):
    code, output, errors = stream("-", *BY_KIND, *KEPT, "--duration", "60s", stdin=at(1) + at(6))
    assert "- cannot be read again" in errors
    assert [json.loads(line)["window_start"][17:-1] for line in output.splitlines()] == ["00", "05"]
    code, output, errors = stream("-", *BY_KIND, *KEPT, stdin=at(7) + at(12))
    assert code == 0
    assert [json.loads(line)["window_start"][17:-1] for line in output.splitlines()] == ["10"]
    assert "1 late" in errors


# --- checkpoints that are refused


@pytest.fixture
def kept(stream, tmp_path):
    """Make a checkpoint; return the arguments of its stream."""
    (tmp_path / "e.jsonl").write_text(at(1) + at(6))
    (tmp_path / "f.py").write_text("def f(event):\n    return event\n")
    options = ("e.jsonl", *BY_KIND, "--call", "f.py:f", "--to", "w.jsonl", *KEPT)
    assert stream(*options)[0] == 0
    return options


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--window", "tumbling:1m"), "--window was tumbling:5s, and is now tumbling:1m"),
        (("--lateness", "1s"), "--lateness was 0, and is now 1s"),
        (("--by", "u"), "--by was k, and is now k, u"),
        (("--agg", "sum:v"), "--agg was count=count, and is now sum_v=sum:v"),
        (("--jq", "."), "and is now --jq '.'"),
        (("--late", "late.jsonl"), "--late was nothing"),
        (("--to", "x.jsonl"), "x.jsonl"),
    ],
)
def test_a_checkpoint_of_another_stream(stream, tmp_path, kept, more, told):
    before = (tmp_path / "w.jsonl").read_bytes()
    options = list(kept)
    if "--to" in more:  # which is given once
        options[options.index("--to") : options.index("--to") + 2] = []
    code, _, errors = stream(*options, *more)
    assert code == 2
    assert told in errors
    assert (tmp_path / "w.jsonl").read_bytes() == before


def test_how_it_is_carried_out_may_change(stream, kept):
    assert stream(*kept, "--max-keys", "7", "--workers", "0", "--checkpoint-every", "5s")[0] == 0


def test_a_function_that_has_changed(stream, tmp_path, kept):
    (tmp_path / "f.py").write_text("def f(event):\n    return None\n")
    code, _, errors = stream(*kept)
    assert code == 2
    assert "transform 1 was --call f.py:f (" in errors


@pytest.mark.parametrize("place", [0, 0.5, 0.999])
def test_a_damaged_checkpoint(stream, tmp_path, kept, place):
    data = (tmp_path / "c.json").read_bytes()
    at_ = int(place * len(data))
    (tmp_path / "c.json").write_bytes(data[:at_] + b"#" + data[at_ + 1 :])
    code, _, errors = stream(*kept)
    assert code == 2
    assert "c.json is" in errors
    (tmp_path / "c.json").write_bytes(data[:-20])
    assert stream(*kept)[0] == 2


def test_files_that_are_not_what_they_were(stream, tmp_path, kept):
    windows = (tmp_path / "w.jsonl").read_bytes()
    for other in (windows[:-1], windows.replace(b"00Z", b"01Z")):
        (tmp_path / "w.jsonl").write_bytes(other)
        code, _, errors = stream(*kept)
        assert code == 2
        assert "w.jsonl has changed since the checkpoint" in errors
        assert (tmp_path / "w.jsonl").read_bytes() == other
    (tmp_path / "w.jsonl").write_bytes(windows)
    (tmp_path / "e.jsonl").write_text(at(2))
    code, _, errors = stream(*kept)
    assert code == 2
    assert "e.jsonl" in errors


@pytest.mark.parametrize("kind", ["file", "sqlite", "duckdb", "postgres"])
def test_a_target_that_is_gone_is_not_made_anew(stream, tmp_path, server, kind):
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    if kind == "postgres":
        server.execute("CREATE DATABASE gone")
    (tmp_path / "e.jsonl").write_text(at(1) + at(6) + at(7))
    target, gone = {
        "file": (("--to", "w.jsonl"), (tmp_path / "w.jsonl").unlink),
        "sqlite": (("--to", "sqlite:///w.db", "--table", "w"), (tmp_path / "w.db").unlink),
        "duckdb": (("--to", "duckdb:///w.ddb", "--table", "w"), (tmp_path / "w.ddb").unlink),
        "postgres": (
            ("--to", server.url("gone"), "--table", "w"),
            lambda: server.execute("DROP TABLE w", "gone"),
        ),
    }[kind]
    options = ("e.jsonl", *BY_KIND, *target, *KEPT)
    assert stream(*options, "--max-events", "2")[0] == 0
    gone()
    files = sorted(os.listdir(tmp_path))
    code, _, errors = stream(*options)
    assert (code, sorted({*os.listdir(tmp_path), "c.json.lock"})) == (2, files), errors
    if kind != "file":
        assert "is gone" in errors
        assert "remove the checkpoint to start over" in " ".join(errors.split())
    (tmp_path / "c.json").unlink()
    assert stream(*options)[0] == 0


def test_a_checkpoint_in_use(live, stream, tmp_path):
    (tmp_path / "none.jsonl").touch()
    process = live("-", *BY_KIND, *KEPT)
    wait_until((tmp_path / "c.json").exists)
    code, _, errors = stream("-", *BY_KIND, *KEPT)
    assert code == 75
    assert f"is held by process {process.pid}" in errors


def test_a_checkpoint_is_only_data(tmp_path, kept):
    head, body, *rest = (tmp_path / "c.json").read_bytes().split(b"\n")
    assert not rest
    assert json.loads(head)["kind"] == "asyncbatch checkpoint"
    assert json.loads(body)["configuration"]["--window"] == "tumbling:5s"
