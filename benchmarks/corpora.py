"""The generated corpora: many sizes, tiny files, people, orders."""

from __future__ import annotations

import json
import math
import os
import shutil
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.documents import Document, Documents
from benchmarks.orders import orders
from benchmarks.people import people, people_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 20240607
MEDIAN_BYTES, SPREAD, MAX_BYTES = 4096, 2.15, 2_300_000  # log-normal sizes with a maximum

TINY_BYTES = 220, 380
MIXED_FOLDER, TINY_FOLDER, ARRAYS_FOLDER = 500, 1000, 100  # files per folder


class Corpus(NamedTuple):
    """A folder of subfolders with JSON files, and the totals of their content."""

    folder: str
    files: int
    bytes: int
    records: int

    def subfolders(self) -> list[str]:
        """Return the folders that hold the files, in order."""
        return [os.path.join(self.folder, name) for name in sorted(os.listdir(self.folder))]

    def all_files(self) -> list[str]:
        """Return the files, in order."""
        folders = self.subfolders()
        return [os.path.join(at, name) for at in folders for name in sorted(os.listdir(at))]

    def some_files(self, count: int) -> list[str]:
        """Return the first files."""
        first = self.subfolders()[0]
        return [os.path.join(first, name) for name in sorted(os.listdir(first))[:count]]

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes / 1e6:,.0f} MB, {self.records:,} records"


def mixed_corpus(data: str, files: int) -> Corpus:
    """Return the corpus of log-normal sizes: median 4 KB, at most 2.3 MB."""
    return _corpus(os.path.join(data, f"mixed-{files}"), MIXED_FOLDER, lambda: _mixed(files))


def tiny_corpus(data: str, files: int) -> Corpus:
    """Return the corpus of files of about 300 bytes."""
    return _corpus(os.path.join(data, f"tiny-{files}"), TINY_FOLDER, lambda: _tiny(files))


def people_corpus(data: str, files: int) -> Corpus:
    """Return the corpus of people: arrays of a thousand."""
    return _corpus(
        os.path.join(data, f"people-{files}"), ARRAYS_FOLDER, lambda: people(files, SEED)
    )


def people_lines_corpus(data: str, files: int) -> Corpus:
    """Return the corpus of people in JSON Lines, a thousand per file."""
    folder = os.path.join(data, f"people-lines-{files}")
    return _corpus(folder, ARRAYS_FOLDER, lambda: people_lines(files, SEED), ".jsonl")


def orders_corpus(data: str, files: int) -> Corpus:
    """Return the corpus of orders: arrays of fifty.

    A smaller corpus is the beginning of a larger one.
    """
    return _corpus(
        os.path.join(data, f"orders-{files}"), ARRAYS_FOLDER, lambda: orders(files, SEED)
    )


def _mixed(files: int) -> Iterator[Document]:
    """Yield documents with sizes at equal steps of the distribution.

    So the distribution is exact for each seed.
    """
    documents = Documents(SEED)
    logarithms = NormalDist(math.log(MEDIAN_BYTES), SPREAD)
    steps = (logarithms.inv_cdf((step + 0.5) / files) for step in range(files))
    sizes = [min(MAX_BYTES, round(math.exp(step))) for step in steps]
    documents.shuffle(sizes)
    return map(documents.document, sizes)


def _tiny(files: int) -> Iterator[Document]:
    documents = Documents(SEED)
    return (documents.document(documents.uniform(*TINY_BYTES)) for _ in range(files))


def _corpus(
    folder: str, per_folder: int, make: Callable[[], Iterator[Document]], suffix: str = ".json"
) -> Corpus:
    """Return the corpus in a folder, and generate it first if it is not complete.

    The description is written last: a corpus without a description is not complete.
    """
    description = f"{folder}.about.json"
    if os.path.exists(description):
        with open(description, encoding="utf-8") as stream:
            return Corpus(folder, **json.load(stream))
    print(f"generating {os.path.basename(folder)} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    corpus = Corpus(folder, *_write(folder, per_folder, make(), suffix))
    about = corpus._asdict()
    del about["folder"]
    with open(description, "w", encoding="utf-8") as stream:
        json.dump(about, stream)
    return corpus


def _write(
    folder: str, per_folder: int, documents: Iterator[Document], suffix: str
) -> tuple[int, int, int]:
    files = size = records = 0
    for files, document in enumerate(documents, 1):
        subfolder = os.path.join(folder, f"{(files - 1) // per_folder:04}")
        if files % per_folder == 1:
            os.makedirs(subfolder)
        with open(os.path.join(subfolder, f"{files:06}{suffix}"), "wb") as stream:
            stream.write(document.content)
        size += len(document.content)
        records += document.records
    return files, size, records
