"""Folders of files: many sizes, tiny ones, and documents of public packages."""

from __future__ import annotations

import json
import math
from itertools import islice
from statistics import NormalDist
from typing import TYPE_CHECKING

from benchmarks.corpora import SEED, Corpus, documents_of, folder_of
from benchmarks.documents import Document, Documents
from benchmarks.orders import orders as arrays_of_orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.setting import Setting

MEDIAN_BYTES, SPREAD, MAX_BYTES = 4096, 2.15, 2_300_000  # log-normal sizes with a maximum
TINY_BYTES = 220, 380
MIXED_FOLDER, TINY_FOLDER = 500, 1000  # files per folder


def mixed(setting: Setting, parts: int = 1) -> Corpus:
    """Return files of log-normal sizes: median 4 KB, at most 2.3 MB. Or one of `parts` of them."""
    files = setting.size(15_000, 1_500) // parts
    return folder_of(setting, f"mixed-{files}", lambda: _mixed(files), per_folder=MIXED_FOLDER)


def tiny(setting: Setting, files: int | None = None) -> Corpus:
    """Return files of about 300 bytes."""
    count = files or setting.size(100_000, 5_000)
    return folder_of(setting, f"tiny-{count}", lambda: _tiny(count), per_folder=TINY_FOLDER)


def all_mixed(setting: Setting, parts: int = 1) -> dict[str, Corpus]:
    """Return the shapes of files of many sizes, or one of `parts` of each."""
    found = {"log-normal sizes": mixed(setting, parts)}
    part = f"-{parts}" if parts > 1 else ""
    if (public := setting.public) is not None:
        files = setting.size(None, 1_500)
        found["real documents"] = folder_of(
            setting,
            f"documents-{files or 'all'}{part}",
            lambda: documents_of(public.documents()[:files:parts]),
            per_folder=MIXED_FOLDER,
        )
    else:
        found["pretty"] = folder_of(
            setting,
            f"pretty-{setting.quick}{part}",
            lambda: map(_pretty, _mixed(setting.size(15_000, 1_500) // parts)),
            per_folder=MIXED_FOLDER,
        )
    return found


def all_tiny(setting: Setting) -> dict[str, Corpus]:
    """Return the shapes of tiny files."""
    found = {"tiny, generated": tiny(setting)}
    count = setting.size(100_000, 5_000)
    if (public := setting.public) is not None:
        found["tiny, real objects"] = folder_of(
            setting,
            f"small-{count}",
            lambda: documents_of(islice(public.small_objects(), count)),
            per_folder=TINY_FOLDER,
        )
    else:
        found["tiny, pretty"] = folder_of(
            setting,
            f"tiny-pretty-{count}",
            lambda: map(_pretty, _tiny(count)),
            per_folder=TINY_FOLDER,
        )
    return found


def orders(setting: Setting, parts: int = 1) -> Corpus:
    """Return arrays of fifty orders, or the first of `parts` equal parts of them."""
    files = setting.size(6_000, 200) // parts
    return folder_of(setting, f"orders-{files}", lambda: arrays_of_orders(files, SEED))


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


def _pretty(document: Document) -> Document:
    text = json.dumps(json.loads(document.content), indent=2, ensure_ascii=False)
    return Document(text.encode(), document.records)
