"""dlt: a generator of records, a page per file, into a database."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.clean import clean
from benchmarks.peers.records import pages_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def pages(folder: str, *, cleaned: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each file, cleaned as people or as they are."""
    for page in pages_of(folder):
        yield [person for person in map(clean, page) if person] if cleaned else page


def main(address: str, beside: str, folder: str, key: str = "") -> None:
    """Load all files of a folder into a table `records`. The state of dlt is stored in `beside`.

    People for SQLite are cleaned. A table of PostgreSQL gets the primary key.
    """
    os.environ["DLT_DATA_DIR"] = beside
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt  # type: ignore[import-not-found,unused-ignore]

    into_sqlite = address.startswith("sqlite:")
    destination = (
        dlt.destinations.sqlalchemy(address) if into_sqlite else dlt.destinations.postgres(address)
    )
    pipeline = dlt.pipeline(
        "records",
        destination=destination,
        dataset_name="main" if into_sqlite else "public",
        pipelines_dir=beside,
    )
    pipeline.run(
        pages(folder, cleaned=into_sqlite),
        table_name="records",
        write_disposition="append",
        **({"primary_key": key} if key else {}),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
