"""Validation of orders and of areas against schemas. A few of them are invalid."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import sys
from itertools import chain
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.corpora import SEED, counted_lines
from benchmarks.measure import CommandError
from benchmarks.orders import PER_FILE, UNSOUND, orders, unsound_among
from benchmarks.races import CPUS, Racer, peer, race, shell
from benchmarks.shapes import polygon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

FOLDER = os.path.dirname(os.path.dirname(__file__))
ORDER_SCHEMA, AREA_SCHEMA = (
    os.path.join(FOLDER, name) for name in ("order.schema.json", "area.schema.json")
)
# check-jsonschema gets one of this number of files.
PART = 20
AREAS, QUICK_AREAS, AREA_POOL = 20_000, 1_000, 1_000
SOURCEMETA = "sourcemeta_jsonschema"


def validate(setting: Setting) -> None:
    """Compare with bare loops around the same validator, and with other programs."""
    folder, part = filesets.orders(setting), filesets.orders(setting, PART)
    check_jsonschema = Racer(
        "check-jsonschema",
        _check_jsonschema(part, f"{part.path}.schema.json"),
        lambda output: _check(part, _reported(output)),
        goals.SCHEMA_CHECK,
        rounds=setting.slow_rounds,
        needs="check_jsonschema",
        part=part,
    )
    racers = [*_ours_and_floor(setting, folder, ORDER_SCHEMA), check_jsonschema]
    race(setting, "--schema, arrays of orders", folder, racers)
    files = setting.size(6_000, 200)
    lines = counted_lines(setting, "orders", lambda: _orders(files), files * PER_FILE)
    areas = setting.size(AREAS, QUICK_AREAS)
    shapes = {
        "lines of orders": (lines, ORDER_SCHEMA),
        "lines of areas": (
            counted_lines(setting, "areas", lambda: _areas(areas), areas),
            AREA_SCHEMA,
        ),
    }
    for shape, (corpus, schema) in shapes.items():
        racers = [*_ours_and_floor(setting, corpus, schema), _sourcemeta(corpus, schema)]
        race(setting, f"--schema, {shape}", corpus, racers)


def _ours_and_floor(setting: Setting, corpus: Corpus, schema: str) -> list[Racer]:
    run = [setting.asyncbatch, "run", corpus.path, "--schema", schema]
    return [
        Racer(
            "asyncbatch run --schema",
            [*run, "--max-failures", "100%", "-o", "json"],
            lambda output: _check(corpus, json.loads(output)["records"]["rejected"]),
        ),
        Racer(
            f"floor: jsonschema-rs, {CPUS} processes",
            peer("schema_loop", str(CPUS), schema, corpus.path),
            lambda output: _check(corpus, int(output)),
            goals.SCHEMA_FLOOR,
        ),
    ]


def _sourcemeta(corpus: Corpus, schema: str) -> Racer:
    validate = [sys.executable, "-m", SOURCEMETA, "validate", schema, corpus.path]
    # It fails where records are invalid, and then its Python wrapper prints a traceback.
    command = f"{shlex.join([*validate, '--fast', '--continue', '--json'])} 2>/dev/null"
    return Racer(
        "sourcemeta's jsonschema validate",
        shell(f"{command} || true"),
        lambda output: _check(corpus, output.count(b'"valid": false'), output.count(b'"valid"')),
        goals.SCHEMA_SOURCEMETA,
        needs=SOURCEMETA,
    )


def _orders(files: int) -> Iterator[bytes]:
    arrays = (json.loads(document.content) for document in orders(files, SEED))
    for order in chain.from_iterable(arrays):
        yield f"{json.dumps(order, separators=(',', ':'), ensure_ascii=False)}\n".encode()


def _areas(count: int) -> Iterator[bytes]:
    """Yield lines of areas, of which as many are invalid as of orders."""
    pick = random.Random(SEED)
    sound = [f"{json.dumps(polygon(pick))}\n".encode() for _ in range(AREA_POOL)]
    # A latitude of 900 in the last point, or no city.
    unsound = [line.replace(b"]]]}}\n", b"], [1, 900]]]}}\n") for line in sound[:50]]
    unsound += [line.replace(b'"city"', b'"town"') for line in sound[50:100]]
    for number in range(1, count + 1):
        yield pick.choice(sound if number % UNSOUND else unsound)


def _check_jsonschema(corpus: Corpus, schema_of_arrays: str) -> list[str]:
    """Write the schema for whole files, and return a command that ignores formats."""
    with open(ORDER_SCHEMA, encoding="utf-8") as stream:
        schema = json.load(stream)
    del schema["$id"]
    whole = {key: schema.pop(key) for key in ("$schema", "$defs")}
    with open(schema_of_arrays, "w", encoding="utf-8") as stream:
        json.dump(whole | {"type": "array", "items": schema}, stream)
    options = ("-o", "json", "--disable-formats", "*", "--schemafile", schema_of_arrays)
    check = shlex.join([sys.executable, "-m", "check_jsonschema", *options, *corpus.all_files()])
    return shell(f"{check} || test $? -eq 1")


def _reported(output: bytes) -> int:
    """Return the number of records that check-jsonschema reports."""
    errors = json.loads(output)["errors"]
    indices = (re.match(r"\$\[(\d+)\]", error["path"]) for error in errors)
    places = {
        (error["filename"], index[1]) for error, index in zip(errors, indices, strict=True) if index
    }
    return len(places)


def _check(corpus: Corpus, invalid: int, records: int | None = None) -> None:
    expected = unsound_among(corpus.records)
    if invalid != expected or records not in (None, corpus.records):
        raise CommandError(f"{invalid:,} records were found not to fit, not {expected:,}")
