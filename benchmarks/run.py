"""The command `python -m benchmarks.run`, to run from the root of the repository."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version

from benchmarks.contenders import CPUS
from benchmarks.measure import CommandError
from benchmarks.sections.cloud import read_objects
from benchmarks.sections.cluster import use_cluster
from benchmarks.sections.comparison import compare_mixed, compare_tiny
from benchmarks.sections.extraction import ask, pour
from benchmarks.sections.huge import count_elements, count_lines
from benchmarks.sections.jsonl import rewrite
from benchmarks.sections.load import load
from benchmarks.sections.postgres import load_postgres
from benchmarks.sections.query import query
from benchmarks.sections.responsiveness import watch_loop
from benchmarks.sections.schema import validate
from benchmarks.sections.startup import start
from benchmarks.sections.storage import open_slowly, read_cold
from benchmarks.sections.stream import put_into_windows
from benchmarks.setting import Setting

SECTIONS = {
    "mixed": ("Many sizes", compare_mixed),
    "tiny": ("Many tiny files", compare_tiny),
    "cold": ("Caches dropped", read_cold),
    "delay": ("Slow opens", open_slowly),
    "startup": ("Start-up", start),
    "loop": ("Responsiveness", watch_loop),
    "load": ("Cleaned and loaded into SQLite", load),
    "postgres": ("Loaded into PostgreSQL", load_postgres),
    "jq": ("A jq expression for each record", query),
    "schema": ("A schema for each record", validate),
    "jsonl": ("Arrays into JSON Lines", rewrite),
    "huge-lines": ("One huge file of JSON Lines", count_lines),
    "huge-array": ("One huge array", count_elements),
    "api": ("Many requests to an API", ask),
    "cloud": ("Many small objects of a slow store", read_objects),
    "endless": ("An API without end, into SQLite", pour),
    "dask": ("The workers of a Dask cluster", use_cluster),
    "stream": ("Events into windows of time", put_into_windows),
}
ROUNDS, QUICK_ROUNDS = 5, 2
PEERS = (
    *("duckdb", "aiofiles", "aiohttp", "pysimdjson"),
    *("dlt", "SQLAlchemy", "sqlite-utils", "check-jsonschema", "jsonschema-rs", "orjson", "ijson"),
    *("asyncpg", "boto3", "bytewax"),
)
EXECUTABLE = os.path.join(os.path.dirname(__file__), "..", ".venv", "bin", "asyncbatch")


def main() -> int:
    """Run the chosen sections. Fail if a command fails or gives a wrong result."""
    # Without compiled modules, each process of asyncbatch would compile them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options = _options()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    setting = Setting(options.asyncbatch, rounds, quick=options.quick)
    try:
        _describe(setting)
        for name in options.only or SECTIONS:
            title, section = SECTIONS[name]
            print(f"== {title} ({name}) ==", flush=True)
            section(setting)
    except CommandError as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"rounds of each section (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="small corpora and 2 rounds: a trial")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="%(choices)s"
    )
    parser.add_argument("--asyncbatch", default=EXECUTABLE, help="the executable to measure")
    return parser.parse_args()


def _describe(setting: Setting) -> None:
    """Print the machine and the versions that the numbers depend on."""
    tools = [
        _first_line(setting.asyncbatch, "--version"),
        *(f"{package} {version(package)}" for package in PEERS),
        *(_first_line(tool, "--version") for tool in ("jq", "strace") if shutil.which(tool)),
    ]
    print(f"{CPUS} CPUs, {platform.system()} {platform.release()}, Python {sys.version.split()[0]}")
    print(", ".join(tools))
    if setting.quick:
        print("--quick: a trial of the benchmark; corpora this small are mostly start-up")
    print(flush=True)


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CommandError(f"{command[0]}: {error}") from None
    return done.stdout.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
