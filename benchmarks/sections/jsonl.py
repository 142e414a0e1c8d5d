"""Conversion of arrays of people to one file of JSON Lines."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import orjson

from benchmarks.goals import Goal
from benchmarks.measure import CommandError
from benchmarks.races import Racer, in_order, race, shell

if TYPE_CHECKING:
    from benchmarks.setting import Setting


def rewrite(setting: Setting) -> None:
    """Compare with one jq process that splits the arrays."""
    corpus = setting.people
    lines = os.path.join(setting.output, "people.jsonl")

    def check(_output: bytes) -> None:
        with open(lines, "rb") as stream:
            ids = sorted(orjson.loads(line)["id"] for line in stream)
        if ids != list(range(1, corpus.records + 1)):
            raise CommandError(f"{lines} does not hold each of {corpus.records:,} people once")

    racers = [
        Racer(
            "asyncbatch run --to .jsonl",
            corpus,
            [setting.asyncbatch, "run", corpus.folder, "--to", lines],
            check,
        ),
        Racer(
            "jq, one process",
            corpus,
            shell(f"{in_order(corpus.folder)} | xargs -0 jq -c '.[]' > {shlex.quote(lines)}"),
            check,
            Goal(">=", 5, "x"),
            needs="jq",
        ),
    ]
    race(setting, racers)
