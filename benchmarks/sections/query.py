"""One jq expression for every record, compared with the jq command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from benchmarks.contenders import CPUS, JQ_FILES
from benchmarks.goals import Goal
from benchmarks.races import Agreement, Racer, race, shell

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

EXPRESSION = """
    select(.ok != false and .status != "returned")
    | {id, type, status, user: (.user // .customer.name), total}
"""
RECORDS = 'if type == "array" then .[] else . end'
MIXED_GOAL = Goal(">=", 0.7, "x")


def query(setting: Setting) -> None:
    """Compare on the corpora of many sizes and of tiny files."""
    _query(setting, setting.mixed, MIXED_GOAL)
    _query(setting, setting.tiny, None)


def _query(setting: Setting, corpus: Corpus, goal: Goal | None) -> None:
    agreement = Agreement("lines")

    def check(output: bytes) -> None:
        agreement.check(output.count(b"\n"))

    find = f"find {shlex.quote(corpus.folder)} -name '*.json' -print0"
    program = shlex.quote(f"{RECORDS} | {EXPRESSION}")
    racers = [
        Racer(
            "asyncbatch run --jq --to -",
            corpus,
            [setting.asyncbatch, "run", corpus.folder, "--jq", EXPRESSION, "--to", "-"],
            check,
        ),
        Racer(
            f"jq, xargs -P {CPUS}",
            corpus,
            shell(f"{find} | xargs -0 -P {CPUS} -n {JQ_FILES} jq -c {program}"),
            check,
            goal,
            needs="jq",
        ),
    ]
    race(setting, racers)
