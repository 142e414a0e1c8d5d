"""The options of a benchmark run, and its corpora."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from typing import TYPE_CHECKING

from benchmarks.corpora import (
    mixed_corpus,
    orders_corpus,
    people_corpus,
    people_lines_corpus,
    tiny_corpus,
)
from benchmarks.events import events
from benchmarks.huge import huge_array, huge_lines

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus

MIXED_FILES, TINY_FILES = 15_000, 100_000
QUICK_MIXED_FILES, QUICK_TINY_FILES = 1_500, 5_000
PEOPLE_FILES, ORDERS_FILES = 500, 6_000
QUICK_PEOPLE_FILES, QUICK_ORDERS_FILES = 20, 200
HUGE_LINES_BYTES, HUGE_ARRAY_BYTES, QUICK_HUGE_BYTES = 2_000_000_000, 1_000_000_000, 200_000_000
EVENTS, QUICK_EVENTS = 2_000_000, 400_000
SLOW_ROUNDS = 2  # for peers that take many times longer than asyncbatch

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".data")


class Setting:
    """The options of all sections, and the corpora, generated at their first use."""

    def __init__(self, asyncbatch: str, rounds: int, *, quick: bool) -> None:
        self.asyncbatch = os.path.abspath(asyncbatch)
        self.rounds = rounds
        self.quick = quick

    @property
    def slow_rounds(self) -> int:
        """The number of rounds for slow peers."""
        return min(SLOW_ROUNDS, self.rounds)

    @property
    def asyncbatch_python(self) -> str:
        """The interpreter of the environment in which asyncbatch is installed."""
        return os.path.join(os.path.dirname(self.asyncbatch), "python")

    @cached_property
    def mixed(self) -> Corpus:
        """The corpus of many sizes."""
        os.makedirs(DATA, exist_ok=True)
        return mixed_corpus(DATA, QUICK_MIXED_FILES if self.quick else MIXED_FILES)

    @cached_property
    def tiny(self) -> Corpus:
        """The corpus of tiny files."""
        os.makedirs(DATA, exist_ok=True)
        return tiny_corpus(DATA, QUICK_TINY_FILES if self.quick else TINY_FILES)

    @cached_property
    def people(self) -> Corpus:
        """The corpus of arrays of people to clean."""
        os.makedirs(DATA, exist_ok=True)
        return people_corpus(DATA, QUICK_PEOPLE_FILES if self.quick else PEOPLE_FILES)

    @cached_property
    def people_lines(self) -> Corpus:
        """The same people in JSON Lines."""
        os.makedirs(DATA, exist_ok=True)
        return people_lines_corpus(DATA, QUICK_PEOPLE_FILES if self.quick else PEOPLE_FILES)

    def orders(self, parts: int = 1) -> Corpus:
        """Return the corpus of orders, or the first of `parts` equal parts of it."""
        os.makedirs(DATA, exist_ok=True)
        return orders_corpus(DATA, (QUICK_ORDERS_FILES if self.quick else ORDERS_FILES) // parts)

    @cached_property
    def huge_lines(self) -> Corpus:
        """The huge file of JSON Lines."""
        os.makedirs(DATA, exist_ok=True)
        return huge_lines(DATA, QUICK_HUGE_BYTES if self.quick else HUGE_LINES_BYTES)

    @cached_property
    def huge_array(self) -> Corpus:
        """The huge file of one array."""
        os.makedirs(DATA, exist_ok=True)
        return huge_array(DATA, QUICK_HUGE_BYTES if self.quick else HUGE_ARRAY_BYTES)

    @cached_property
    def events(self) -> Corpus:
        """The events of one stream."""
        os.makedirs(DATA, exist_ok=True)
        return events(self.asyncbatch, DATA, QUICK_EVENTS if self.quick else EVENTS)

    @property
    def output(self) -> str:
        """The folder for the output of commands."""
        return os.path.join(DATA, "output")

    def clear_output(self) -> None:
        """Empty the output folder, and wait until the storage has written all data."""
        shutil.rmtree(self.output, ignore_errors=True)
        os.makedirs(self.output)
        os.sync()
