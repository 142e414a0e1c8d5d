"""Records to load into tables: people, wide records, and flights of a public package."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.corpora import SEED, Corpus, folder_of
from benchmarks.documents import Document
from benchmarks.people import people
from benchmarks.shapes import wide_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.setting import Setting

PEOPLE_FILES, QUICK_PEOPLE_FILES = 500, 20
WIDE_FILES, QUICK_WIDE_FILES, WIDE_PER_FILE, WIDE_FIELDS = 250, 10, 400, 41
FLIGHT_FILES, QUICK_FLIGHT_FILES = 5, 1

PEOPLE_COLUMNS = {
    "id": "bigint",
    "name": "text",
    "email": "text",
    "signup": "text",
    "amount": "double precision",
}
_WIDE_TYPES = {
    "id": "bigint",
    "count": "bigint",
    "ratio": "double precision",
    "name": "text",
    "valid": "boolean",
    "note": "text",
}


class Table(NamedTuple):
    """Records with the columns of a table, and the sum of one column, to check what is loaded."""

    name: str
    corpus: Corpus
    columns: Mapping[str, str]  # the type of each, in PostgreSQL
    summed: str
    total: int

    @property
    def columns_json(self) -> str:
        """The columns, for a peer in another process."""
        return json.dumps(self.columns)


def people_table(setting: Setting, *, lines: bool = False) -> Table:
    """Return people with untidy names and addresses: arrays of a thousand, or lines."""
    files = setting.size(PEOPLE_FILES, QUICK_PEOPLE_FILES)
    corpus = _folder(setting, f"people-{files}", people(files, SEED), lines=lines)
    count = corpus.records
    return Table("people", corpus, PEOPLE_COLUMNS, "id", count * (count + 1) // 2)


def wide_table(setting: Setting, *, lines: bool = False) -> Table:
    """Return records of 41 scalars: numbers, texts, Booleans and nulls."""
    files = setting.size(WIDE_FILES, QUICK_WIDE_FILES)
    corpus = _folder(setting, f"wide-{files}", _wide(files), lines=lines)
    count = corpus.records
    fields = wide_record(random.Random(SEED), 0, WIDE_FIELDS)
    columns = {name: _WIDE_TYPES[name.partition("_")[0]] for name in fields}
    return Table("wide records", corpus, columns, "id", count * (count - 1) // 2)


def flights_table(setting: Setting) -> Table | None:
    """Return real records of three numbers: arrays of 200,000. None without public packages."""
    if setting.public is None:
        return None
    files = setting.size(FLIGHT_FILES, QUICK_FLIGHT_FILES)
    text = setting.public.flights()
    flights = json.loads(text)
    documents = (Document(text, len(flights)) for _ in range(files))
    corpus = folder_of(setting, f"flights-{files}", lambda: documents)
    columns = {"delay": "bigint", "distance": "bigint", "time": "double precision"}
    total = files * sum(flight["distance"] for flight in flights)
    return Table("real flights", corpus, columns, "distance", total)


def all_tables(setting: Setting) -> list[Table]:
    """Return the tables whose files are arrays."""
    found = [people_table(setting), wide_table(setting)]
    if (flights := flights_table(setting)) is not None:
        found.append(flights)
    return found


def _folder(setting: Setting, name: str, documents: Iterator[Document], *, lines: bool) -> Corpus:
    if not lines:
        return folder_of(setting, name, lambda: documents)
    return folder_of(setting, f"{name}-lines", lambda: map(_as_lines, documents), suffix=".jsonl")


def _as_lines(document: Document) -> Document:
    texts = (json.dumps(one, separators=(",", ":")) for one in json.loads(document.content))
    return Document("".join(f"{text}\n" for text in texts).encode(), document.records)


def _wide(files: int) -> Iterator[Document]:
    pick = random.Random(SEED)
    for file in range(files):
        numbers = range(file * WIDE_PER_FILE, (file + 1) * WIDE_PER_FILE)
        records = [wide_record(pick, number, WIDE_FIELDS) for number in numbers]
        text = json.dumps(records, separators=(",", ":"), ensure_ascii=False)
        yield Document(text.encode(), len(records))
