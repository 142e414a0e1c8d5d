"""Validation of orders with a schema of a realistic size. A few orders are invalid."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from benchmarks.contenders import CPUS, peer
from benchmarks.goals import Goal
from benchmarks.measure import CommandError
from benchmarks.orders import unsound_among
from benchmarks.races import Racer, race, shell

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

SCHEMA = os.path.join(os.path.dirname(os.path.dirname(__file__)), "order.schema.json")
# check-jsonschema gets one of this number of files.
PART = 20


def validate(setting: Setting) -> None:
    """Compare with a bare loop around the same validator, and with check-jsonschema."""
    corpus, part = setting.orders(), setting.orders(PART)
    run = [setting.asyncbatch, "run", corpus.folder, "--schema", SCHEMA]
    racers = [
        Racer(
            "asyncbatch run --schema",
            corpus,
            [*run, "--max-failures", "100%", "-o", "json"],
            lambda output: _check(corpus, json.loads(output)["records"]["rejected"]),
        ),
        Racer(
            f"jsonschema-rs, {CPUS} processes",
            corpus,
            [sys.executable, peer("schema_loop.py"), str(CPUS), SCHEMA, corpus.folder],
            lambda output: _check(corpus, int(output)),
            Goal(">=", 0.7, "x"),
        ),
        Racer(
            "check-jsonschema",
            part,
            _check_jsonschema(part, f"{part.folder}.schema.json"),
            lambda output: _check(part, _reported(output)),
            Goal(">=", 40, "x"),
            rounds=setting.slow_rounds,
        ),
    ]
    race(setting, racers)


def _check_jsonschema(corpus: Corpus, schema_of_arrays: str) -> list[str]:
    """Write the schema for whole files, and return a command that ignores formats."""
    with open(SCHEMA, encoding="utf-8") as stream:
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


def _check(corpus: Corpus, invalid: int) -> None:
    expected = unsound_among(corpus.records)
    if invalid != expected:
        raise CommandError(f"{invalid:,} records were found not to fit, not {expected:,}")
