"""The performance goals of asyncbatch: the rows of the summary."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """A bound: `Goal(">=", 2.5, "x")`."""

    relation: Literal["<=", ">="]
    bound: float
    unit: str

    def verdict(self, value: float) -> str:
        """Return "ok" or "MISSED" for the measured value, before it is rounded."""
        met = value <= self.bound if self.relation == "<=" else value >= self.bound
        return "ok" if met else "MISSED"

    def worst(self, values: list[float]) -> float:
        """Return the value that is the furthest from the goal, or the least beyond it."""
        return max(values) if self.relation == "<=" else min(values)

    def cells(self, value: float) -> tuple[str, str]:
        """Return the last two cells of a table row: the goal and the verdict."""
        return str(self), self.verdict(value)

    def show(self, value: float) -> str:
        """Return a measured value with its unit."""
        return f"{value:,.0f}{self.unit}" if value >= 100 else f"{value:.3g}{self.unit}"

    def __str__(self) -> str:
        return f"{self.relation} {round(self.bound, 3):,g}{self.unit}"


class Row(NamedTuple):
    """A row of the summary: the work, what it is compared with, and the goal.

    An `x` is the speed of asyncbatch divided by that of the other: 3x means a third of the time.
    """

    work: str
    against: str
    goal: Goal


def _at_least(work: str, against: str, ratio: float) -> Row:
    return Row(work, against, Goal(">=", ratio, "x"))


def _at_most(work: str, against: str, bound: float, unit: str) -> Row:
    return Row(work, against, Goal("<=", bound, unit))


MIXED_DUCKDB = _at_least("files of many sizes, counted", "DuckDB", 3)
MIXED_JQ = _at_least("files of many sizes, counted", "jq under xargs", 8)
MIXED_TEXTBOOK = _at_least("files of many sizes, counted", "aiofiles + json.loads", 10)
MIXED_FLOOR = _at_least("files of many sizes, counted", "floor: read and parse", 0.5)
TINY_DUCKDB = _at_least("tiny files, counted", "DuckDB", 6)
TINY_JQ = _at_least("tiny files, counted", "jq under xargs", 4)
TINY_TEXTBOOK = _at_least("tiny files, counted", "aiofiles + json.loads", 20)
COLD = _at_most("files that are not cached", "time of 32 threads that only read", 1.4, "x")
DELAY = Row("files that open after 5 ms", "", Goal(">=", 5000, " files/s"))

ARRAY_DUCKDB = _at_least("one array, counted", "DuckDB read_json_objects", 1.5)
ARRAY_IJSON = _at_least("one array, counted", "ijson", 2.5)
LINES_DUCKDB = _at_least("JSON Lines, counted", "DuckDB read_json_objects", 2)
LINES_MEMORY = _at_most("JSON Lines, counted", "memory of DuckDB", 1 / 3, " of it")

JQ = _at_least("--jq", "jq under xargs", 1.5)
SCHEMA_FLOOR = _at_least("--schema", "floor: bare loops with the validator", 0.8)
SCHEMA_SOURCEMETA = _at_least("--schema, JSON Lines", "sourcemeta's jsonschema validate", 1)
SCHEMA_CHECK = _at_least("--schema", "check-jsonschema", 40)

LINES_OUT = _at_least("into JSON Lines", "jq -c", 6)
PARQUET_OUT = _at_least("into Parquet", "DuckDB COPY … TO", 1)
SQLITE_FLOOR = _at_least("into SQLite", "floor: bare executemany", 0.4)
SQLITE_DLT = _at_least("into SQLite", "dlt", 10)
SQLITE_UTILS = _at_least("into SQLite", "jq | sqlite-utils insert", 15)
POSTGRES_FLOOR = _at_least("into PostgreSQL, appended", "floor: bare COPY", 0.6)
POSTGRES_DLT = _at_least("into PostgreSQL, appended", "dlt", 10)
UPSERT_FLOOR = _at_least("into PostgreSQL, upserted", "floor: bare COPY", 0.45)

STREAM_DUCKDB = _at_least("events into windows", "DuckDB, offline SQL", 0.5)
STREAM_BYTEWAX = _at_least("events into windows", "Bytewax", 12)
STREAM_DELAY = _at_most("a window, until it is printed", "", 20, " ms")

WATCH_DELAY = _at_most("a file in a watched folder, until its row is committed", "", 100, " ms")
ORIGIN = _at_least("--with-source", "the same run without it", 0.9)
PROFILE = _at_least("profile", "run, which only counts", 0.6)
INFER = _at_least("schema infer", "genson", 20)

API = _at_most("requests to an API", "ideal time", 1.25, "x")
CLOUD = _at_least("objects of a slow store", "boto3, one by one", 8)
CLOUD_REUSE = Row("objects of a slow store", "", Goal(">=", 10, " requests/connection"))
DASK = _at_least("--engine dask", "--engine local", 0.6)
DASK_IDLE = _at_most("--engine dask", "time between tasks", 5, "%")

START_VERSION = _at_most("--version", "import of typer and rich", 1.5, "x")
START_HELP = _at_most("--help", "import of typer and rich", 1.5, "x")
START_RUN_HELP = _at_most("run --help", "import of typer and rich", 2.5, "x")
START_TEN = _at_most("ten files", "", 0.3, " s")
LAG = _at_most("lag of the event loop, p99", "", 50, " ms")
MEMORY = _at_most("peak memory of all processes", "", 300, " MB")
MEMORY_FILES = _at_most("peak memory, files counted or an API read", "", 250, " MB")

GROWTH_TIME = _at_most("growth: time", "growth of the input", 1.3, "x")
GROWTH_MEMORY = _at_most("growth: peak memory", "", 300, " MB")
GROWTH_VALUE = _at_most("growth: memory of one value", "growth of the value", 1.3, "x")
