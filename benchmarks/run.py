"""The command `python -m benchmarks.run`, to run from the root of the repository."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measure import CommandError
from benchmarks.races import CPUS
from benchmarks.sections.cloud import read_objects
from benchmarks.sections.cluster import use_cluster
from benchmarks.sections.extraction import ask, pour
from benchmarks.sections.files import compare_mixed, compare_tiny
from benchmarks.sections.growth import grow
from benchmarks.sections.huge import count_elements, count_lines
from benchmarks.sections.load import load
from benchmarks.sections.origin import add_origin, profile
from benchmarks.sections.postgres import load_postgres
from benchmarks.sections.query import query
from benchmarks.sections.responsiveness import watch_loop
from benchmarks.sections.rewrite import write_lines, write_parquet
from benchmarks.sections.schema import validate
from benchmarks.sections.startup import start
from benchmarks.sections.storage import open_slowly, read_cold
from benchmarks.sections.stream import put_into_windows
from benchmarks.sections.watching import watch_folder
from benchmarks.setting import Setting

SECTIONS = {
    "huge-array": ("One huge array of any shape", count_elements),
    "huge-lines": ("One huge file of JSON Lines", count_lines),
    "jq": ("A jq expression for each record", query),
    "load": ("Into SQLite", load),
    "postgres": ("Into PostgreSQL", load_postgres),
    "jsonl": ("Into JSON Lines", write_lines),
    "parquet": ("Into Parquet", write_parquet),
    "mixed": ("Files of many sizes", compare_mixed),
    "tiny": ("Tiny files", compare_tiny),
    "schema": ("A schema for each record", validate),
    "stream": ("Events into windows of time", put_into_windows),
    "watch": ("A folder that is watched", watch_folder),
    "origin": ("The origin of each record", add_origin),
    "profile": ("Profiles of folders", profile),
    "growth": ("Growing inputs", grow),
    "cold": ("Caches dropped", read_cold),
    "delay": ("Slow opens", open_slowly),
    "startup": ("Start-up", start),
    "loop": ("Responsiveness", watch_loop),
    "api": ("Many requests to an API", ask),
    "cloud": ("Many small objects of a slow store", read_objects),
    "endless": ("An API without end, into SQLite", pour),
    "dask": ("The workers of a Dask cluster", use_cluster),
}
ROUNDS, QUICK_ROUNDS = 5, 2
FOLDER = os.path.dirname(__file__)
EXECUTABLE = os.path.join(FOLDER, "..", ".venv", "bin", "asyncbatch")


def main() -> int:
    """Run the chosen sections. Fail if one of them fails; a missed goal is no failure."""
    # Without compiled modules, each process of asyncbatch would compile them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options = _options()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    setting = Setting(options.asyncbatch, rounds, quick=options.quick)
    try:
        machine = _describe(setting)
    except CommandError as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    for name in options.only or SECTIONS:
        title, section = SECTIONS[name]
        print(f"== {title} ({name}) ==", flush=True)
        try:
            section(setting)
        except CommandError as error:
            setting.results.failures[name] = str(error)
            print(f"FAILED: {error}\n", flush=True)
        if options.json:  # also of a run that is stopped later
            setting.results.write(options.json, machine)
    setting.results.show()
    return 1 if setting.results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"rounds of each section (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="small corpora and 2 rounds: a trial")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="%(choices)s"
    )
    parser.add_argument("--asyncbatch", default=EXECUTABLE, help="the executable to measure")
    parser.add_argument("--json", metavar="FILE", help="write the results for benchmarks.page")
    return parser.parse_args()


def _describe(setting: Setting) -> dict[str, object]:
    """Print and return the machine and the versions that the numbers depend on."""
    machine = (
        f"{CPUS} CPUs, {platform.system()} {platform.release()}, Python {sys.version.split()[0]}"
    )
    tools = [
        _first_line(setting.asyncbatch, "--version"),
        *map(_version, _peers()),
        *(
            _first_line(tool, "--version") if shutil.which(tool) else f"no {tool}"
            for tool in ("jq", "strace", "npm")
        ),
    ]
    print(machine)
    print(", ".join(tools))
    if setting.quick:
        print("--quick: a trial of the benchmark; corpora this small are mostly start-up")
    print(flush=True)
    return {
        "machine": machine,
        "versions": tools,
        "rounds": setting.rounds,
        "quick": setting.quick,
    }


def _peers() -> list[str]:
    """Return the names of the packages in requirements.txt."""
    with open(os.path.join(FOLDER, "requirements.txt"), encoding="utf-8") as stream:
        return re.findall(r"^[\w-]+", stream.read(), re.MULTILINE)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CommandError(f"{command[0]}: {error}") from None
    return done.stdout.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
