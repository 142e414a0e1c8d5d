"""HTTP APIs: many slow requests at a time, and a long chain of pages into a table."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.api import api
from benchmarks.contenders import peer
from benchmarks.goals import Goal
from benchmarks.measure import CommandError, interleave, measure
from benchmarks.tables import print_memory, print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

REQUESTS, DELAY, AT_ONCE, PAGE = 4_000, 0.05, 50, 5
ENDLESS_PAGES, ENDLESS_PAGE = 2_000, 1_000
QUICK_SHARE = 10
IDEAL_GOAL = Goal("<=", 1.25, "x")
MEMORY_GOAL = Goal("<=", 250, " MB")

PIPELINE = """\
name = "people"
[[source]]
type = "http"
urls = ["{url}"]
records = "/items"
pagination = {pagination}
concurrency = {at_once}
[sink]
to = "sqlite:///{database}"
table = "people"
"""


def ask(setting: Setting) -> None:
    """Request many slow pages, and compare with a bare client that stores nothing."""
    requests = REQUESTS // (QUICK_SHARE if setting.quick else 1)
    ideal = requests * DELAY / AT_ONCE
    with api(DELAY, requests, PAGE) as address:
        url = f"{address}/page"
        ours = _ours(setting, url, '{ type = "page", pages = "/pages" }')
        bare = [sys.executable, peer("aiohttp_pages.py"), url, str(requests), str(AT_ONCE)]
        times = interleave(
            {"asyncbatch etl, into SQLite": ours, "bare aiohttp, counted only": bare},
            setting.rounds,
            before=lambda: _clear(setting),
            check=lambda name, output: _check(setting, name, output, requests * PAGE),
        )
    print(
        f"{requests:,} requests of {DELAY * 1000:g} ms, {AT_ONCE} at a time: {ideal:g} s if ideal"
    )
    rows = []
    for name, taken in times.items():
        seconds = median(taken)
        goal = IDEAL_GOAL.cells(seconds / ideal) if name.startswith("asyncbatch") else ("", "")
        rows.append(
            [
                name, f"{seconds:.2f}", f"{min(taken):.2f}-{max(taken):.2f}",
                f"{requests / seconds:,.0f}", f"{seconds / ideal:.2f}x", *goal,
            ]
        )  # fmt: skip
    print_table(("", "median s", "range s", "requests/s", "of ideal", "goal", ""), rows)


def pour(setting: Setting) -> None:
    """Load a long chain of pages, each naming the next, and measure the memory."""
    pages = ENDLESS_PAGES // (QUICK_SHARE if setting.quick else 1)
    with api(0, pages, ENDLESS_PAGE) as address:
        command = _ours(setting, f"{address}/cursor", '{ type = "cursor", next = "/next" }')
        _clear(setting)
        found = measure(command, memory=True)
        _check(setting, "asyncbatch", found.output, pages * ENDLESS_PAGE)
    records = pages * ENDLESS_PAGE
    rate = records / found.seconds
    print(f"{records:,} records through to SQLite: {found.seconds:.1f} s, {rate:,.0f} records/s")
    print_memory(found.peak_bytes, MEMORY_GOAL)


def _ours(setting: Setting, url: str, pagination: str) -> list[str]:
    os.makedirs(setting.output, exist_ok=True)
    path = os.path.join(os.path.dirname(setting.output), "people.toml")
    database = _database(setting)
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            PIPELINE.format(url=url, pagination=pagination, at_once=AT_ONCE, database=database)
        )
    return [setting.asyncbatch, "etl", path]


def _clear(setting: Setting) -> None:
    setting.clear_output()


def _database(setting: Setting) -> str:
    return os.path.join(setting.output, "people.db")


def _check(setting: Setting, name: str, output: bytes, records: int) -> None:
    """Raise CommandError unless each record was loaded exactly once."""
    if name.startswith("asyncbatch"):
        with closing(sqlite3.connect(_database(setting))) as database:
            query = "SELECT count(*), count(DISTINCT id) FROM people"
            found = set(database.execute(query).fetchone())
    else:
        found = {int(output)}
    if found != {records}:
        raise CommandError(f"{name}: {found} records, not {records:,}")
