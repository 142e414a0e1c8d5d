"""Records of slow sources do not wait for ever, neither in a worker nor in the loader."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import subprocess
from contextlib import aclosing, closing

import pytest

from asyncbatch.core.aio import with_pauses
from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until, waiting_bytes
from tests.servers.api import ApiServer, stall

PIPELINE = """
name = "slow"
[[source]]
type = "files"
paths = PATHS
[sink]
to = "sqlite:///o.db"
table = "t"
flush_interval = INTERVAL
"""


@pytest.fixture
def start(tmp_path):
    """Start a command whose standard input is a pipe; return the process."""
    started = []

    def _start(*arguments):
        process = CommandProcess(
            [*arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(),
        )
        started.append(process)
        return process

    yield _start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def rows(folder):
    try:
        with closing(sqlite3.connect(f"file:{folder}/o.db?mode=ro", uri=True)) as database:
            return [row[0] for row in database.execute("SELECT n FROM t ORDER BY n")]
    except sqlite3.OperationalError:  # the table does not exist yet
        return []


def write(process, *numbers):
    for number in numbers:
        process.stdin.write(b'{"n": %d}\n' % number)
    process.stdin.flush()


@pytest.mark.parametrize("interval", ["0.1", '"200ms"'])
def test_lines_are_loaded_while_their_input_goes_on(start, files, interval):
    pipeline = PIPELINE.replace("INTERVAL", interval).replace("PATHS", '["-"]')
    folder = files({"p.toml": pipeline})
    process = start("etl", "p.toml", "--output", "json")
    write(process, 1, 2)
    wait_until(lambda: rows(folder) == [1, 2])
    write(process, 3)
    wait_until(lambda: rows(folder) == [1, 2, 3])
    process.stdin.write(b"nope\n")
    write(process, 4)
    wait_until(lambda: rows(folder) == [1, 2, 3, 4])
    out, err = process.communicate(timeout=PATIENCE)
    report = json.loads(out)
    assert (process.returncode, report["records"]["written"]) == (1, 4), err
    assert report["records"]["read"] == 5
    assert report["files"]["partial"] == 1
    (failure,) = report["failures"]
    assert (failure["record"], failure["line"]) == (4, 4)


def test_a_file_is_loaded_while_the_next_says_nothing(start, files):
    pipeline = PIPELINE.replace("INTERVAL", "0.1").replace("PATHS", '["a.json", "-"]')
    folder = files({"p.toml": pipeline, "a.json": '[{"n": 1}, {"n": 2}]'})
    process = start("etl", "p.toml", "--output", "json")
    wait_until(lambda: rows(folder) == [1, 2])
    write(process, 3)
    out, err = process.communicate(timeout=PATIENCE)
    assert json.loads(out)["files"]["succeeded"] == 2, err
    assert rows(folder) == [1, 2, 3]


def test_a_page_is_loaded_while_the_next_one_stalls(start, files):
    async def usual(_):
        return None

    source = """
[[source]]
type = "http"
urls = ["URL"]
records = "/items"
pagination = { type = "cursor", next = "/next_cursor" }
[sink]"""
    with ApiServer([{"n": number} for number in range(9)], size=3) as api:
        api.misbehave(usual)
        api.misbehave(stall())
        text = PIPELINE.replace("INTERVAL", "0.1").replace("PATHS", '["-"]')
        folder = files(
            {"p.toml": text.replace("[sink]", source.replace("URL", api.url("/cursor")))}
        )
        start("etl", "p.toml", "--only", "http")
        wait_until(lambda: rows(folder) == [0, 1, 2])
        wait_until(lambda: api.requests == 2)


def test_lines_come_out_while_their_input_goes_on(start):
    process = start("run", "-", "--to", "-", "--workers", "1")
    write(process, 1, 2)
    assert [process.stdout.readline() for _ in range(2)] == [b'{"n":1}\n', b'{"n":2}\n']
    out, err = process.communicate(b'{"n": 3}\n', timeout=PATIENCE)
    assert out == b'{"n":3}\n', err


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("text", "count"), [(b'[{"n": 1}, {"n": 2}]', 2), (b'{"n": 1}\n{"n": 2}\n{"n": 3}', 3)]
)
def test_what_comes_with_a_pause_is_the_same(start, tmp_path, text, count, compress):
    process = start("run", "-", "--to", "sqlite:///o.db", "--table", "t", "--output", "json")
    content = compress(text)
    process.stdin.write(content[:10])
    process.stdin.flush()
    wait_until(lambda: not waiting_bytes(process.stdin))
    with pytest.raises(subprocess.TimeoutExpired):  # longer than any pause that it waits for
        process.wait(1.0)
    out, err = process.communicate(content[10:], timeout=PATIENCE)
    assert json.loads(out)["records"]["written"] == count, err
    assert rows(tmp_path) == list(range(1, count + 1))


async def test_pauses():
    go_on = asyncio.Event()

    async def items():
        yield 1
        await go_on.wait()
        yield 2
        raise ValueError("broken")

    said = []

    async def listen():
        async with aclosing(with_pauses(items(), lambda: 0.001)) as timely:
            async for item in timely:
                said.append(item)
                if said[-3:] == [None] * 3:
                    go_on.set()

    with pytest.raises(ValueError, match="broken"):
        await listen()
    assert (said[0], said[-1]) == (1, 2)
    assert set(said[1:-1]) == {None}


async def test_closing_leaves_the_items_at_rest():
    async def items():
        yield 1
        await asyncio.Event().wait()

    source = items()
    timely = with_pauses(source, lambda: 0.001)
    assert [await anext(timely), await anext(timely)] == [1, None]
    await timely.aclose()
    await source.aclose()  # this would fail if a task still waited for it
