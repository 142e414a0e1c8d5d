"""Inputs that grow from 1x to 4x and 16x: the time grows as they do, and memory stays."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import filesets, goals
from benchmarks.corpora import SEED, array_of, counted_lines, folder_of, lines_of
from benchmarks.documents import Document
from benchmarks.measure import CommandError, interleave, measure
from benchmarks.races import expect
from benchmarks.shapes import composed, orders, wide_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

STEPS = (1, 4, 16)
ROUNDS = 2  # at most: the largest steps take long
# The values of one file, whose size grows.
VALUES = 4
COLUMN_RECORDS, QUICK_COLUMN_RECORDS = 10_000, 500
MEMORY_LIMIT = "300MB"
HEADER = (
    *("", "1x", "1x s", "4x s", "16x s", "1x MB", "4x MB", "16x MB"),
    *("time/size", "goal", "", "memory", "goal", ""),
)


class Step(NamedTuple):
    """A command for one size of an input, and the check of its result."""

    command: Sequence[str]
    check: Callable[[bytes], object]


class Growth(NamedTuple):
    """An input that grows from `first`. A value must be in memory as a whole; others need not."""

    name: str
    first: int
    step: Callable[[int], Step]
    unit: str = ""
    is_value: bool = False


def grow(setting: Setting) -> None:
    """Measure time and memory for each step of each input."""
    inputs = _Inputs(setting)
    size, mb = setting.size, 1_000_000
    growths = [
        Growth("files", size(62_000, 1_000), inputs.files),
        Growth("files into a table", size(6_000, 1_000), inputs.loaded_files),
        Growth("failures", size(62_500, 2_000), inputs.failures),
        Growth("columns", size(25, 10), inputs.columns),
        Growth("keys of --dedupe", size(150_000, 5_000), inputs.dedupe),
        Growth("keys of --by", size(25_000, 2_000), inputs.groups),
        Growth("keys of --agg", size(125_000, 2_000), inputs.aggregates),
        Growth("JSON Lines", size(150, 2) * mb, inputs.lines, " B"),
        Growth("one array", size(150, 2) * mb, inputs.array, " B"),
        Growth("one record", size(2 * mb, 100_000), inputs.record, " B", is_value=True),
        Growth("one element", size(2 * mb, 100_000), inputs.element, " B", is_value=True),
        Growth("one document", size(8 * mb, 400_000), inputs.document, " B", is_value=True),
    ]
    rows = []
    for growth in growths:
        try:
            rows.append(_measure(setting, growth))
        except CommandError as error:
            rows.append([growth.name, f"failed: {str(error).strip()[-200:]!r}"])
            setting.results.failures[f"growth of {growth.name}"] = str(error).strip()[-200:]
    print("medians; time/size is the growth of the time by that of the input")
    setting.results.add_table("Growth of time and memory", HEADER, rows)


def _measure(setting: Setting, growth: Growth) -> list[str]:
    """Return the row of an input. The worse of both steps counts."""
    steps = {f"{times}x": growth.step(times * growth.first) for times in STEPS}
    peaks = []
    for step in steps.values():
        setting.clear_output()
        outcome = measure(step.command, memory=True)
        step.check(outcome.output)
        peaks.append(outcome.peak_bytes / 1e6)
    times = interleave(
        {name: step.command for name, step in steps.items()},
        min(ROUNDS, setting.rounds),
        before=setting.clear_output,
        check=lambda name, output: steps[name].check(output),
    )
    seconds = [median(taken) for taken in times.values()]
    add, name = setting.results.add, growth.name
    time_growth = _worst_growth(seconds)
    memory_row = goals.GROWTH_VALUE if growth.is_value else goals.GROWTH_MEMORY
    memory = _worst_growth(peaks) if growth.is_value else max(peaks)
    return [
        name,
        f"{growth.first:,}{growth.unit}",
        *(f"{one:.2f}" for one in seconds),
        *(f"{one:,.0f}" for one in peaks),
        f"{time_growth:.2f}x",
        *add(goals.GROWTH_TIME, name, time_growth),
        memory_row.goal.show(memory),
        *add(memory_row, name, memory),
    ]


def _worst_growth(measured: Sequence[float]) -> float:
    """Return how much faster than the input a measured value grows, at most."""
    steps = list(zip(STEPS, measured, strict=True))
    return max(
        (next_value / value) / (next_at / at)
        for (at, value), (next_at, next_value) in pairwise(steps)
    )


class _Inputs:
    """The inputs of all sizes, with their commands."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def files(self, number: int) -> Step:
        """Return the first folders of the largest number of tiny files."""
        largest = filesets.tiny(self._setting, self._setting.size(62_000, 1_000) * STEPS[-1])
        folders = largest.subfolders()[: number // filesets.TINY_FOLDER]
        return Step(
            [self._setting.asyncbatch, "run", *folders, "-o", "json"],
            _expect_report("files", "succeeded", number),
        )

    def loaded_files(self, number: int) -> Step:
        """Return the first folders of the same files, appended to a table without a key."""
        largest = filesets.tiny(self._setting, self._setting.size(62_000, 1_000) * STEPS[-1])
        folders = largest.subfolders()[: number // filesets.TINY_FOLDER]
        database = self._setting.output("records.db")
        target = ["--to", f"sqlite:///{database}", "--table", "records"]
        return Step(
            [self._setting.asyncbatch, "run", *folders, *target, "-o", "json"],
            _expect_report("files", "succeeded", number),
        )

    def failures(self, number: int) -> Step:
        """Return a file in which every second line is bad, in three ways."""
        faults = (b'{"id": %d, "x": tru}\n', b'{"id": %d\n', b'[%d, "\x01"]\n')

        def lines() -> Iterator[bytes]:
            for at in range(number):
                yield b'{"id": %d, "name": "Ana"}\n' % at
                yield faults[at % 3] % at

        corpus = counted_lines(self._setting, "bad", lines, 2 * number)
        return self._run(corpus, ["--max-failures", "100%"], "rejected", number)

    def columns(self, number: int) -> Step:
        """Return records of many fields, into SQLite."""
        records = self._setting.size(COLUMN_RECORDS, QUICK_COLUMN_RECORDS)

        def lines() -> Iterator[bytes]:
            pick = random.Random(SEED)
            for at in range(records):
                yield json.dumps(wide_record(pick, at, number)).encode() + b"\n"

        corpus = counted_lines(self._setting, f"columns-{number}", lines, records)
        database = self._setting.output("records.db")
        target = ["--to", f"sqlite:///{database}", "--table", "records"]
        return self._run(corpus, target, "written", records)

    def dedupe(self, number: int) -> Step:
        """Return records of which half repeat a key."""

        def lines() -> Iterator[bytes]:
            for at in range(2 * number):
                yield b'{"id": "key-%d", "at": %d}\n' % (at * 7919 % number, at)

        corpus = counted_lines(self._setting, "keys", lines, 2 * number)
        target = ["--to", self._setting.output("records.jsonl"), "--max-memory", MEMORY_LIMIT]
        return self._run(corpus, ["--dedupe", "id", *target], "written", number)

    def groups(self, number: int) -> Step:
        """Return events in one window."""
        words = ["--window", "tumbling:1h", "--by", "user", "--agg", "count", "-q"]
        words += ["--max-keys", str(number)]
        return Step(
            [self._setting.asyncbatch, "stream", self._users(number).path, *words],
            expect(number, lambda output: output.count(b"\n")),
        )

    def aggregates(self, number: int) -> Step:
        """Return the same events, as the records of a run."""
        words = ["--by", "user", "--agg", "count"]
        words += ["--to", self._setting.output("records.jsonl")]
        return self._run(self._users(number), words, "written", number)

    def _users(self, number: int) -> Corpus:
        """Return events with as many keys, two each."""

        def lines() -> Iterator[bytes]:
            for at in range(2 * number):
                key = at * 7919 % number
                yield b'{"timestamp": "2026-01-01T00:00:00Z", "user": "key-%d"}\n' % key

        return counted_lines(self._setting, "groups", lines, 2 * number)

    def lines(self, size: int) -> Step:
        """Return one file of JSON Lines."""
        return self._counted(lines_of(self._setting, "lines-orders", orders, size))

    def array(self, size: int) -> Step:
        """Return one array."""
        return self._counted(array_of(self._setting, "array-orders", orders, size))

    def record(self, size: int) -> Step:
        """Return lines that are large."""
        texts = _values_of(size)
        return self._counted(lines_of(self._setting, "record", texts, VALUES * size))

    def element(self, size: int) -> Step:
        """Return an array whose elements are large."""
        texts = _values_of(size)
        return self._counted(array_of(self._setting, "element", texts, VALUES * size))

    def document(self, size: int) -> Step:
        """Return a file that is one object."""
        document = Document(next(composed(size)), 1)
        return self._counted(folder_of(self._setting, f"document-{size}", lambda: [document]))

    def _counted(self, corpus: Corpus) -> Step:
        return self._run(corpus, [], "passed", corpus.records)

    def _run(self, corpus: Corpus, options: Sequence[str], field: str, number: int) -> Step:
        command = [self._setting.asyncbatch, "run", corpus.path, *options, "-o", "json"]
        return Step(command, _expect_report("records", field, number))


def _expect_report(part: str, field: str, number: int) -> Callable[[bytes], None]:
    """Return a check of a number in the report."""
    return expect(number, lambda output: int(json.loads(output)[part][field]))


def _values_of(size: int) -> Callable[[], list[bytes]]:
    """Return a function that generates values of about `size` bytes."""
    return lambda: list(islice(composed(size), VALUES))
