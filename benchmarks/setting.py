"""What a benchmark run was asked for, and the corpora that it works on."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from benchmarks.corpora import mixed_corpus, tiny_corpus

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus

MIXED_FILES, TINY_FILES = 15_000, 100_000
QUICK_MIXED_FILES, QUICK_TINY_FILES = 1_500, 5_000
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".data")


class Setting:
    """The options, shared by all sections; corpora are generated when first used."""

    def __init__(self, asyncbatch: str, rounds: int, *, quick: bool) -> None:
        self.asyncbatch = os.path.abspath(asyncbatch)
        self.rounds = rounds
        self.quick = quick

    @property
    def asyncbatch_python(self) -> str:
        """The interpreter of asyncbatch's environment."""
        return os.path.join(os.path.dirname(self.asyncbatch), "python")

    @cached_property
    def mixed(self) -> Corpus:
        """Many sizes."""
        os.makedirs(DATA, exist_ok=True)
        return mixed_corpus(DATA, QUICK_MIXED_FILES if self.quick else MIXED_FILES)

    @cached_property
    def tiny(self) -> Corpus:
        """Many tiny files."""
        os.makedirs(DATA, exist_ok=True)
        return tiny_corpus(DATA, QUICK_TINY_FILES if self.quick else TINY_FILES)
