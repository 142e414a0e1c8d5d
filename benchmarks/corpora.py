"""Generated files of JSON, which stay on the disk for the next run."""

from __future__ import annotations

import json
import os
import shutil
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.documents import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.setting import Setting

SEED = 20240607
PART_BYTES = 1_000_000  # of a huge file, at least: what fits the cache of a processor


class Corpus(NamedTuple):
    """A folder of subfolders with JSON files, or one file, and the totals of the content."""

    path: str
    files: int
    bytes: int
    records: int

    def subfolders(self) -> list[str]:
        """Return the folders that hold the files, in order."""
        return [os.path.join(self.path, name) for name in sorted(os.listdir(self.path))]

    def all_files(self) -> list[str]:
        """Return the files, in order."""
        folders = self.subfolders()
        return [os.path.join(at, name) for at in folders for name in sorted(os.listdir(at))]

    def some_files(self, count: int) -> list[str]:
        """Return the first files."""
        first = self.subfolders()[0]
        return [os.path.join(first, name) for name in sorted(os.listdir(first))[:count]]

    @property
    def parts(self) -> str:
        """A file with the offsets of parts of a huge file that hold whole elements."""
        return f"{self.path}.parts.json"

    def __str__(self) -> str:
        files = f"{self.files:,} files" if self.files > 1 else "1 file"
        return f"{files}, {self.bytes / 1e6:,.0f} MB, {self.records:,} records"


def folder_of(
    setting: Setting,
    name: str,
    documents: Callable[[], Iterable[Document]],
    *,
    per_folder: int = 100,
    suffix: str = ".json",
) -> Corpus:
    """Return a folder with a file for each document, with `per_folder` files per subfolder."""

    def write(path: str) -> tuple[int, int, int]:
        files = size = records = 0
        for files, document in enumerate(documents(), 1):
            subfolder = os.path.join(path, f"{(files - 1) // per_folder:04}")
            if files % per_folder == 1 or per_folder == 1:
                os.makedirs(subfolder)
            with open(os.path.join(subfolder, f"{files:06}{suffix}"), "wb") as stream:
                stream.write(document.content)
            size += len(document.content)
            records += document.records
        return files, size, records

    return _kept(setting, name, write)


def array_of(
    setting: Setting, name: str, texts: Callable[[], Sequence[bytes]], size: int
) -> Corpus:
    """Return a file of one array of about `size` bytes that repeats elements."""
    return _file(setting, f"{name}-{size}.json", texts, size, (b"[", b",\n", b"]"))


def lines_of(
    setting: Setting, name: str, texts: Callable[[], Sequence[bytes]], size: int
) -> Corpus:
    """Return a file of JSON Lines of about `size` bytes that repeats records."""
    return _file(setting, f"{name}-{size}.jsonl", texts, size, (b"", b"\n", b"\n"))


def counted_lines(
    setting: Setting, name: str, lines: Callable[[], Iterable[bytes]], count: int
) -> Corpus:
    """Return a file of `count` lines."""

    def write(path: str) -> tuple[int, int, int]:
        with open(path, "wb") as stream:
            stream.writelines(lines())
        return 1, os.path.getsize(path), count

    return _kept(setting, f"{name}-{count}.jsonl", write)


def documents_of(texts: Iterable[bytes]) -> Iterable[Document]:
    """Return documents, with their numbers of records."""
    for text in texts:
        value = json.loads(text)
        yield Document(text, len(value) if isinstance(value, list) else 1)


def _file(
    setting: Setting,
    name: str,
    texts: Callable[[], Sequence[bytes]],
    size: int,
    around: tuple[bytes, bytes, bytes],
) -> Corpus:
    start, between, end = around

    def write(path: str) -> tuple[int, int, int]:
        elements = cycle(texts())
        count, begin = 1, len(start)
        parts: list[tuple[int, int]] = []
        with open(path, "wb") as stream:
            stream.write(start + next(elements))
            while (at := stream.tell()) < size:
                if at - begin >= PART_BYTES:
                    parts.append((begin, at))
                    begin = at + len(between)
                stream.write(between + next(elements))
                count += 1
            stream.write(end)
        corpus = Corpus(path, 1, os.path.getsize(path), count)
        with open(corpus.parts, "w", encoding="utf-8") as stream_of_parts:
            json.dump([*parts, (begin, at)], stream_of_parts)
        return corpus[1:]

    return _kept(setting, name, write)


def _kept(setting: Setting, name: str, write: Callable[[str], tuple[int, int, int]]) -> Corpus:
    """Return the corpus at a path, and write it first if it is not complete.

    The description is written last: a corpus without a description is not complete.
    """
    path = setting.data(name)
    description = f"{path}.about.json"
    if os.path.exists(description):
        with open(description, encoding="utf-8") as stream:
            return Corpus(path, **json.load(stream))
    print(f"generating {name} ...", flush=True)
    if os.path.isdir(path):
        shutil.rmtree(path)
    corpus = Corpus(path, *write(path))
    about = corpus._asdict()
    del about["path"]
    with open(description, "w", encoding="utf-8") as stream:
        json.dump(about, stream)
    return corpus
