"""dlt: a generator of records, a page per file, into PostgreSQL."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator


def people(folder: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the people of each file."""
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as lines:
                yield [orjson.loads(line) for line in lines]


def main(address: str, beside: str, folder: str) -> None:
    """Load all files of a folder. The state of dlt is stored in `beside`."""
    os.environ["DLT_DATA_DIR"] = beside
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt  # type: ignore[import-not-found,unused-ignore]

    pipeline = dlt.pipeline(
        "people",
        destination=dlt.destinations.postgres(address),
        dataset_name="public",
        pipelines_dir=beside,
    )
    pipeline.run(people(folder), table_name="people", write_disposition="append", primary_key="id")


if __name__ == "__main__":
    main(*sys.argv[1:])
