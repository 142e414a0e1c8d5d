"""The options of a benchmark run."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from typing import TypeVar

from benchmarks.measure import CommandError
from benchmarks.public import PublicData
from benchmarks.results import Results

T = TypeVar("T")

SLOW_ROUNDS = 2  # for peers that take many times longer than asyncbatch

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".data")


class Setting:
    """The options of all sections, the folders for data, and the results."""

    def __init__(self, asyncbatch: str, rounds: int, *, quick: bool) -> None:
        self.asyncbatch = os.path.abspath(asyncbatch)
        self.rounds = rounds
        self.quick = quick
        self.results = Results()

    def size(self, full: T, quick: T) -> T:
        """Return the size of a corpus or job: the small one for a trial."""
        return quick if self.quick else full

    @property
    def slow_rounds(self) -> int:
        """The number of rounds for slow peers."""
        return min(SLOW_ROUNDS, self.rounds)

    @property
    def asyncbatch_python(self) -> str:
        """The interpreter of the environment in which asyncbatch is installed."""
        return os.path.join(os.path.dirname(self.asyncbatch), "python")

    def data(self, name: str) -> str:
        """Return the path of generated or downloaded data, which is kept for the next run."""
        os.makedirs(DATA, exist_ok=True)
        return os.path.join(DATA, name)

    @cached_property
    def public(self) -> PublicData | None:
        """The documents of public packages, or None if they cannot be downloaded."""
        try:
            return PublicData(self.data("packages"))
        except CommandError as error:
            print(f"left out: the shapes of public documents: {error}\n", flush=True)
            return None

    def output(self, name: str) -> str:
        """Return a path in the folder for the output of commands."""
        return os.path.join(DATA, "output", name)

    def clear_output(self) -> None:
        """Empty the output folder, and wait until the storage has written all data."""
        folder = os.path.join(DATA, "output")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        os.sync()
