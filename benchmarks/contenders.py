"""The compared commands, and the checks of their results."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SUMS, LISTS = (
    "asyncbatch run",
    "asyncbatch run -o jsonl",
)  # the rows of asyncbatch: a summary, and a line per file

CPUS = len(os.sched_getaffinity(0))
JQ_FILES = 500  # files per jq process, enough to make its start-up time small


class Contender(NamedTuple):
    """A command that counts the records of a folder."""

    name: str
    rival: str  # the row of asyncbatch that answers the same question
    command: Callable[[str], list[str]]
    total: Callable[[bytes], int]  # reads the number of records from the output
    needs: str = sys.executable  # a program that must be installed

    def missing(self) -> bool:
        """Whether the program `needs` is not installed."""
        return shutil.which(self.needs) is None


def contenders(asyncbatch: str) -> list[Contender]:
    """Return the two rows of asyncbatch, its peers and the floor."""
    return [
        Contender(SUMS, SUMS, lambda folder: [asyncbatch, "run", folder], _summary),
        Contender(LISTS, LISTS, lambda folder: [asyncbatch, "run", folder, "-o", "jsonl"], _events),
        Contender("DuckDB, a row a file", LISTS, _script("duckdb_counts.py", "rows"), _csv),
        Contender("DuckDB, only the sum", SUMS, _script("duckdb_counts.py", "sum"), int),
        Contender(f"jq, xargs -P {CPUS}", LISTS, _jq, _numbers, needs="jq"),
        Contender("aiofiles + json.loads", SUMS, _script("textbook.py"), int),
        Contender(f"floor, {CPUS} processes", SUMS, _script("floor.py", str(CPUS)), int),
    ]


def peer(name: str) -> str:
    """Return the path of a script in peers/."""
    return os.path.join(os.path.dirname(__file__), "peers", name)


def _script(name: str, *arguments: str) -> Callable[[str], list[str]]:
    return lambda folder: [sys.executable, peer(name), *arguments, folder]


def _jq(folder: str) -> list[str]:
    program = shlex.quote('if type == "array" then length else 1 end')
    find = f"find {shlex.quote(folder)} -name '*.json' -print0"
    return ["sh", "-c", f"{find} | xargs -0 -P {CPUS} -n {JQ_FILES} jq {program}"]


def _summary(output: bytes) -> int:
    found = re.search(rb"^ *records +([\d,]+) read", output, re.MULTILINE)
    return int(found[1].replace(b",", b"")) if found else -1


def _events(output: bytes) -> int:
    events = map(json.loads, output.splitlines())
    return sum(event["records"] for event in events if event["event"] == "file")


def _csv(output: bytes) -> int:
    return sum(int(line.rpartition(b",")[2]) for line in output.splitlines())


def _numbers(output: bytes) -> int:
    return sum(map(int, output.split()))
