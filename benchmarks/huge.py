"""The huge files of orders, as JSON Lines or as one array."""

from __future__ import annotations

import json
import os
from itertools import chain
from typing import IO, TYPE_CHECKING

from benchmarks.corpora import SEED, Corpus
from benchmarks.orders import orders

if TYPE_CHECKING:
    from collections.abc import Sequence

# Documents of orders that the file repeats: 20 MB, more than the cache of a processor.
BLOCK_FILES = 400


def huge_lines(data: str, size: int) -> Corpus:
    """Return a file of JSON Lines of about `size` bytes."""
    return _file(os.path.join(data, f"huge-{size}.jsonl"), size, b"", b"\n", b"\n")


def huge_array(data: str, size: int) -> Corpus:
    """Return a file of one array of about `size` bytes, on one line."""
    return _file(os.path.join(data, f"huge-{size}.json"), size, b"[", b",", b"]")


def _file(path: str, size: int, start: bytes, between: bytes, end: bytes) -> Corpus:
    """Return the corpus in a file, and generate it first if it is not complete.

    The description is written last: a file without a description is not complete.
    """
    description = f"{path}.about"
    if os.path.exists(description):
        with open(description, encoding="utf-8") as stream:
            return Corpus(path, 1, **json.load(stream))
    print(f"generating {os.path.basename(path)} ...", flush=True)
    documents = orders(BLOCK_FILES, SEED)
    records = list(chain.from_iterable(json.loads(one.content) for one in documents))
    texts = [json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode() for one in records]
    with open(path, "wb") as stream:
        count = _write(stream, size, texts, (start, between, end))
    about = {"bytes": os.path.getsize(path), "records": count}
    with open(description, "w", encoding="utf-8") as stream:
        json.dump(about, stream)
    return Corpus(path, 1, **about)


def _write(
    stream: IO[bytes], size: int, texts: Sequence[bytes], around: tuple[bytes, bytes, bytes]
) -> int:
    start, between, end = around
    block = between.join(texts)
    stream.write(start + block)
    count = len(texts)
    while stream.tell() < size:
        stream.write(between + block)
        count += len(texts)
    stream.write(end)
    return count
