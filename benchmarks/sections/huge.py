"""One huge file of elements of many shapes, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.corpora import array_of, lines_of
from benchmarks.races import CPUS, Racer, expect, peer, race, read_total
from benchmarks.shapes import shapes

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.goals import Row
    from benchmarks.setting import Setting

BYTES, QUICK_BYTES = 300_000_000, 30_000_000
IJSON_SHAPES = ("orders", "diverse")  # it is slow
LARGE_BYTES = 100_000_000  # at least, of a few large elements


def count_elements(setting: Setting) -> None:
    """Count the elements of one array of each shape, and compare with DuckDB and ijson."""
    for shape in shapes(setting):
        size = max(setting.size(BYTES, QUICK_BYTES), LARGE_BYTES * shape.large)
        corpus = array_of(setting, f"array-{shape.key}", shape.texts, size)
        racers = _racers(setting, corpus, goals.ARRAY_DUCKDB, large=shape.large)
        if shape.name in IJSON_SHAPES:
            ijson = peer("ijson_count", corpus.path)
            check = expect(corpus.records)
            racers.append(Racer("ijson (yajl2_c)", ijson, check, goals.ARRAY_IJSON, rounds=1))
        race(setting, f"array of {shape.name}", corpus, racers)


def count_lines(setting: Setting) -> None:
    """Count the records of JSON Lines of each shape, and compare with DuckDB."""
    for shape in shapes(setting):
        if shape.one_line:
            size = max(setting.size(BYTES, QUICK_BYTES), LARGE_BYTES * shape.large)
            corpus = lines_of(setting, f"lines-{shape.key}", shape.texts, size)
            racers = _racers(setting, corpus, goals.LINES_DUCKDB, large=shape.large)
            peaks = race(setting, f"lines of {shape.name}", corpus, racers)
            ours, theirs = (peaks.get(racer.name) for racer in racers[:2])
            if ours and theirs:
                setting.results.add(goals.LINES_MEMORY, f"lines of {shape.name}", ours / theirs)


def _racers(setting: Setting, corpus: Corpus, row: Row, *, large: bool) -> list[Racer]:
    """Return asyncbatch, the reader of DuckDB that checks texts as asyncbatch does, and a floor."""
    floor = peer("floor_huge", str(CPUS), corpus.path, corpus.parts)
    duckdb = peer("duckdb_huge", corpus.path, *["large"] * large)
    return [
        Racer(
            "asyncbatch run",
            [setting.asyncbatch, "run", corpus.path],
            expect(corpus.records, read_total),
        ),
        Racer("DuckDB, read_json_objects", duckdb, expect(corpus.records), row),
        Racer(f"floor, {CPUS} processes", floor, expect(corpus.records)),
    ]
