"""HTTP APIs: many slow requests at a time, and a long chain of pages into a table."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.api import api
from benchmarks.measure import CommandError, interleave, measure
from benchmarks.races import peer
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

REQUESTS, DELAY, AT_ONCE, PAGE = 4_000, 0.05, 50, 5
ENDLESS_PAGES, ENDLESS_PAGE = 2_000, 1_000
QUICK_SHARE = 10

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
    requests = setting.size(REQUESTS, REQUESTS // QUICK_SHARE)
    ideal = requests * DELAY / AT_ONCE
    with api(DELAY, requests, PAGE) as address:
        url = f"{address}/page"
        ours = _ours(setting, url, '{ type = "page", pages = "/pages" }')
        bare = peer("aiohttp_pages", url, str(requests), str(AT_ONCE))
        times = interleave(
            {"asyncbatch etl, into SQLite": ours, "bare aiohttp, counted only": bare},
            setting.rounds,
            before=setting.clear_output,
            check=lambda name, output: _check(setting, name, output, requests * PAGE),
        )
    print(
        f"{requests:,} requests of {DELAY * 1000:g} ms, {AT_ONCE} at a time: {ideal:g} s if ideal"
    )
    rows = []
    for name, taken in times.items():
        seconds = median(taken)
        goal = ("", "")
        if name.startswith("asyncbatch"):
            goal = setting.results.add(goals.API, "slow pages", seconds / ideal)
        rows.append(
            [
                name, f"{seconds:.2f}", f"{min(taken):.2f}-{max(taken):.2f}",
                f"{requests / seconds:,.0f}", f"{seconds / ideal:.2f}x", *goal,
            ]
        )  # fmt: skip
    print_table(("", "median s", "range s", "requests/s", "of ideal", "goal", ""), rows)


def pour(setting: Setting) -> None:
    """Load a long chain of pages, each naming the next, and measure the memory."""
    pages = setting.size(ENDLESS_PAGES, ENDLESS_PAGES // QUICK_SHARE)
    with api(0, pages, ENDLESS_PAGE) as address:
        command = _ours(setting, f"{address}/cursor", '{ type = "cursor", next = "/next" }')
        setting.clear_output()
        found = measure(command, memory=True)
        _check(setting, "asyncbatch", found.output, pages * ENDLESS_PAGE)
    records = pages * ENDLESS_PAGE
    rate = records / found.seconds
    print(f"{records:,} records through to SQLite: {found.seconds:.1f} s, {rate:,.0f} records/s")
    cells = setting.results.add(goals.MEMORY_FILES, "an API without end", found.peak_bytes / 1e6)
    print(f"peak memory: {found.peak_bytes / 1e6:,.0f} MB  {'  '.join(cells)}\n")


def _ours(setting: Setting, url: str, pagination: str) -> list[str]:
    path = setting.data("people.toml")
    database = _database(setting)
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            PIPELINE.format(url=url, pagination=pagination, at_once=AT_ONCE, database=database)
        )
    return [setting.asyncbatch, "etl", path]


def _database(setting: Setting) -> str:
    return setting.output("people.db")


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
