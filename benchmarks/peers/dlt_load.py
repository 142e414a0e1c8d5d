"""dlt: a generator that cleans, a page per file, into SQLite through SQLAlchemy."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.peers.clean import clean

if TYPE_CHECKING:
    from collections.abc import Iterator


def people(folder: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the cleaned people of each file."""
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as stream:
                yield [person for person in map(clean, orjson.loads(stream.read())) if person]


def main(database: str, folder: str) -> None:
    """Load all files of a folder. The state of dlt is stored beside the database."""
    beside = f"{database}.dlt"
    os.environ["DLT_DATA_DIR"] = beside
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt  # type: ignore[import-not-found,unused-ignore]

    pipeline = dlt.pipeline(
        "people",
        destination=dlt.destinations.sqlalchemy(f"sqlite:///{database}"),
        dataset_name="main",
        pipelines_dir=beside,
    )
    pipeline.run(people(folder), table_name="people", write_disposition="append")


if __name__ == "__main__":
    main(*sys.argv[1:])
