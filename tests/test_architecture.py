"""The shape of the code: imports point one way, and modules stay small."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, cast

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from typer.core import TyperGroup

PACKAGE = ROOT / "asyncbatch"
LAYERS = [
    ("apart", "cgroups", "entries", "retrying", "progress", "secret"),
    ("errors", "budget", "cpus", "memory", "object_path"),
    ("records",),
    ("cloud", "supplies", "tally"),
    ("sections", "settings"),
    ("codec", "identity", "report", "state", "words"),
    ("content", "http", "ledger", "memory_plan", "lock", "merging", "renderers"),
    ("object_content",),
    ("opening",),
    ("failures", "reading", "documents", "transforms", "spool", "windows"),
    ("sinks", "arrays"),
    ("dead_letters", "waiting", "journal", "newest", "record_settings"),
    ("feeds", "steps", "user_sink"),
    (
        *("stretches", "chain", "drafts", "fingerprint", "kept_rows"),
        *("splitting", "huge_files", "bookmarks", "http_feeds", "drawing"),
    ),
    ("extraction", "rejecting", "given_feeds", "async_reading"),
    ("recorder", "work", "file_clock"),
    ("record_work", "sources", "feeding"),
    ("pipeline_file",),
    (
        *("async_work", "plan", "batching", "duplicates", "executors", "guard", "loading"),
        "whole_files",
    ),
    ("admission", "job", "losses", "samples", "source_work"),
    ("bookkeeping", "ordering", "assembly", "cluster_job"),
    ("delivery",),
    ("intake", "streams"),
    ("watching", "engines"),
    ("run",),
    ("api", "pipeline", "streaming"),
    ("cli",),
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Yield each module imported, and whether it is needed at run time."""
    tree = ast.parse(path.read_text())
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node not in for_types


def room(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    here = room(name_of(path))
    if here in (None, "__main__"):
        return
    for module, _ in imports(path):
        there = room(module) if module.startswith("asyncbatch.") else None
        if there and there != here:
            assert RANK[there] < RANK[here], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("typer", "asyncbatch.cli"),
        ("rich", "asyncbatch.cli.rich"),
        ("aiohttp", "asyncbatch.http"),
        ("yarl", "asyncbatch.http"),
        ("aiofiles", ("asyncbatch.cli", "asyncbatch.sources.async_reader")),
        ("jq", "asyncbatch.transforms.jq"),
        ("tenacity", "asyncbatch.core.retry"),
        ("jsonschema_rs", "asyncbatch.transforms.schema"),
        (
            "sqlite3",
            ("asyncbatch.sinks.sqlite", "asyncbatch.state.ledger.", "asyncbatch.transforms.dedupe"),
        ),
        ("duckdb", "asyncbatch.sinks.duckdb"),
        ("asyncpg", "asyncbatch.sinks.postgres.server"),
        ("pyarrow", "asyncbatch.sinks.parquet"),
        ("orjson", "asyncbatch.formats"),
        ("simdjson", "asyncbatch.formats"),
        ("gzip", "asyncbatch.formats"),
        ("obstore", "asyncbatch.storage"),
        ("boto3", "asyncbatch.storage.credentials"),
        ("prometheus_client", "asyncbatch.cli.render.prometheus"),
        ("watchfiles", "asyncbatch.sources.live.watch"),
        ("ddsketch", "asyncbatch.windows.statistics"),
        ("datasketches", "asyncbatch.windows.statistics"),
        ("distributed", "asyncbatch.workers.dask_"),
    ],
)
def test_who_knows_which_library(library, homes):
    for path in MODULES:
        known = {module.split(".")[0] for module, _ in imports(path)}
        assert library not in known or name_of(path).startswith(homes)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path):
    assert len(path.read_text().splitlines()) <= 400


def test_every_option_has_help():
    from typer.main import get_command

    from asyncbatch.cli.app import app

    for command in cast("TyperGroup", get_command(app)).commands.values():
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None), parameter.name
