"""One jq expression for every record, compared with the jq command and with jaq."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.races import CPUS, Agreement, Racer, beside_python, expect, peer, race, under_xargs

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.goals import Row
    from benchmarks.setting import Setting

SELECT = """
    select(.ok != false and .status != "returned")
    | {id, type, status, user: (.user // .customer.name), total}
"""
# For documents of any type.
PROJECT = 'select(type == "object") | {title, status, type, main, annotations}'
RECORDS = 'if type == "array" then .[] else . end'


def query(setting: Setting) -> None:
    """Compare on files of many sizes, which have a goal, and on tiny files."""
    for shape, corpus in filesets.all_mixed(setting).items():
        _query(setting, shape, corpus, goals.JQ)
    for shape, corpus in filesets.all_tiny(setting).items():
        _query(setting, shape, corpus, None)


def _query(setting: Setting, shape: str, corpus: Corpus, row: Row | None) -> None:
    expression = PROJECT if "real" in shape else SELECT
    agreement = Agreement("lines")

    def check(output: bytes) -> None:
        agreement.check(output.count(b"\n"))

    program = f"{RECORDS} | {expression}"
    jaq = beside_python("jaq")
    racers = [
        Racer(
            "asyncbatch run --jq --to -",
            [setting.asyncbatch, "run", corpus.path, "--jq", expression, "--to", "-"],
            check,
        ),
        Racer(
            f"jq, xargs -P {CPUS}",
            under_xargs(corpus.path, ["jq", "-c", program]),
            check,
            row,
            needs="jq",
        ),
        Racer(
            f"jaq, xargs -P {CPUS}",
            under_xargs(corpus.path, [jaq, "-c", program]),
            check,
            needs=jaq,
        ),
        # It parses with simdjson, and runs no program.
        Racer(
            f"floor, {CPUS} processes",
            peer("floor", str(CPUS), corpus.path),
            expect(corpus.records),
        ),
    ]
    race(setting, f"--jq, {shape}", corpus, racers)
