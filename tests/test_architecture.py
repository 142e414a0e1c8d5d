"""The structure of the package: the order of its rooms, its libraries, the size of its modules."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, cast

import pytest

from tests.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.core import TyperGroup

# One process parses all modules: three would take three times as long, and 1.5 GB.
pytestmark = pytest.mark.xdist_group("architecture")

PACKAGE = ROOT / "asyncbatch"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A room imports rooms of earlier lines only. Imports for types and lazy imports count.
ORDER = [
    {"_version", "errors"},
    {"core"},
    {"storage"},
    {"formats"},
    {"transforms", "windows"},
    {"sources", "state"},
    {"sinks"},
    {"config", "http"},
    {"workers"},
    {"pipeline"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# Each third-party library, and the only modules that import it: names, or the beginnings of names.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "aiofiles": ("cli", "sources.async_reader"),
    "asyncinotify": ("sources.live.renames",),
    "aiohttp": ("sources.http", "cli.live.server"),
    "asyncpg": ("sinks.databases.postgres.server",),
    "backports": ("formats.members",),
    "boto3": ("storage.credentials",),
    "botocore": ("storage.credentials",),
    "brotli": ("formats.members",),
    "click": ("cli",),
    "cloudpickle": ("workers.dask",),
    "csimdjson": ("formats.validator",),
    "distributed": ("workers.dask",),
    "duckdb": ("sinks.databases.duckdb", "pipeline.resume.inspection"),
    "jq": ("transforms.jq.transform",),
    "jsonschema_rs": ("transforms.schema",),
    "keyring": ("config.secret_sources",),
    "obstore": ("storage",),
    "orjson": ("formats",),
    "prometheus_client": ("cli.render.prometheus",),
    "pyarrow": ("sinks.parquet",),
    "rich": ("cli",),
    "simdjson": ("formats",),
    "tenacity": ("core.retry",),
    "typer": ("cli",),
    "urllib3": ("storage.web",),
    "watchfiles": ("sources.live.watch",),
    "yarl": ("sources.http",),
}
STANDARD = set(sys.stdlib_module_names) | {"__future__", "compression"}
MOST_LINES = 600


def name_of(path: Path) -> str:
    """Return the dotted name of a module within the package, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").rstrip(".")


NAMES = {name_of(path): path for path in MODULES}


@cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(NAMES[name].read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of each import, of `importlib.import_module("name")` too."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def own_imports(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports."""
    for full in imported(tree_of(name)):
        if full.startswith("asyncbatch."):
            inner = full.removeprefix("asyncbatch.")
            yield inner if inner in NAMES else inner.rpartition(".")[0]


@pytest.mark.parametrize("name", NAMES)
def test_rooms_import_earlier_rooms_only(name):
    room = name.split(".")[0]
    for other in own_imports(name) if room in RANK else ():
        there = other.split(".")[0]
        assert there == room or RANK[there] < RANK[room], f"{name} imports {other}"


def test_no_import_runs_in_a_circle():
    graph = {name: set(own_imports(name)) - {name, ""} for name in NAMES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_libraries_have_homes():
    allowed = {*LIBRARIES, "asyncbatch", "msgspec"}
    for name in NAMES:
        for library in {full.split(".")[0] for full in imported(tree_of(name))} - STANDARD:
            assert library in allowed, f"{name} imports {library}: give it a home in LIBRARIES"
            homes = LIBRARIES.get(library)
            assert homes is None or name.startswith(homes), f"{name} imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_one_function_writes_to_stderr():
    """It escapes the text."""
    for name, path in NAMES.items():
        if name != "cli.terminal":
            found = re.search(r"\berr=True|file=sys\.stderr|sys\.stderr\.write", path.read_text())
            assert found is None, f"{name}: use cli.terminal.to_stderr"


def test_class_names_are_unique():
    homes = defaultdict(list)
    for name in NAMES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def test_rooms_say_what_they_hold():
    for name, path in NAMES.items():
        if path.name == "__init__.py":
            assert ast.get_docstring(tree_of(name)), f"{name} has no charter"


def test_every_option_has_help():
    from typer.main import get_command

    from asyncbatch.cli.app import COMMANDS, app

    group = cast("TyperGroup", get_command(app))
    context = group.make_context("asyncbatch", ["run"], resilient_parsing=True)
    for name, line in COMMANDS.items():
        command = group.get_command(context, name)
        assert command is not None
        assert " ".join((command.help or "").split()).startswith(line)
        for parameter in command.params:
            assert getattr(parameter, "help", None), parameter.name
