"""The delay between the rename of a file into a watched folder and its committed row."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.measure import CommandError
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

FILES, QUICK_FILES = 200, 20
# Seconds between the write and the rename. Within a tick of the clock of the file system, at most
# 10 ms, only a notification tells a renamed file from one written in place, which must settle.
_PRODUCERS = {"renamed 20 ms after the write": 0.02, "renamed at once": 0.0}
_PAUSE_SECONDS = 0.05  # between a committed row and the next file
_POLL_SECONDS = 0.001
_PATIENCE_SECONDS = 30.0  # for the row of one file


def watch_folder(setting: Setting) -> None:
    """Print the delay of single files that are renamed into a folder."""
    rows = []
    for name, pause in _PRODUCERS.items():
        delays = sorted(_delays_ms(setting, pause))
        p99 = delays[len(delays) * 99 // 100]
        cells = setting.results.add(goals.WATCH_DELAY, name, p99)
        rows.append([name, f"{median(delays):.1f}", f"{p99:.1f}", f"{delays[-1]:.1f}", *cells])
    print(f"{len(delays)} files, one at a time: from the rename to the committed row in SQLite")
    print_table(("", "p50 ms", "p99 ms", "max ms", "goal (p99)", ""), rows)


def _delays_ms(setting: Setting, pause: float) -> list[float]:
    """Return the delay of each file, which is renamed `pause` seconds after it was written."""
    setting.clear_output()
    folder, waiting = setting.output("in"), setting.output("waiting")
    database = setting.output("records.db")
    os.mkdir(folder)
    os.mkdir(waiting)
    target = ["--to", f"sqlite:///{database}", "--table", "records"]
    command = [setting.asyncbatch, "run", folder, "--watch", *target, "-q"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    delays = []
    try:
        for number in range(1 + setting.size(FILES, QUICK_FILES)):
            path = os.path.join(waiting, f"{number}.json")
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(f'{{"number": {number}}}')
            time.sleep(pause)
            began = time.perf_counter()
            os.rename(path, os.path.join(folder, f"{number}.json"))
            _wait_for_row(database, number)
            delays.append((time.perf_counter() - began) * 1000)
            time.sleep(_PAUSE_SECONDS)
    finally:
        process.terminate()
        process.wait()
    return delays[1:]  # the first one includes the start of the program


def _wait_for_row(database: str, number: int) -> None:
    began = time.perf_counter()
    while not _has_row(database, number):
        if time.perf_counter() - began > _PATIENCE_SECONDS:
            raise CommandError(f"the row of file {number} is missing")
        time.sleep(_POLL_SECONDS)


def _has_row(database: str, number: int) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "select count(*) from records where number = ?"
            return bool(connection.execute(query, (number,)).fetchone()[0])
    except sqlite3.OperationalError:  # there is no database, or no table yet
        return False
