"""The floor of Parquet: bare processes that decode files, make columns and write these."""

from __future__ import annotations

import os
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.forks import divide, files_of

ROWS = 100_000  # rows of one row group, at least


def write_records(paths: list[str], target: str) -> int:
    """Write the records of files into one file of Arrow's stream format; return their number."""
    total = 0
    with pa.OSFile(target, "wb") as stream:
        writer: pa.RecordBatchStreamWriter | None = None
        for path in paths:
            with open(path, "rb") as source:
                batch = pa.RecordBatch.from_pylist(orjson.loads(source.read()))
            if writer is None:
                writer = pa.ipc.new_stream(stream, batch.schema)
            writer.write_batch(batch)
            total += batch.num_rows
        if writer is not None:
            writer.close()
    return total


def main(processes: int, folder: str, target: str) -> None:
    """Decode a share of the files in each process, and write all into one file of Parquet."""
    paths = files_of(folder)
    parts = [f"{target}.{share}" for share in range(processes)]
    divide(processes, lambda share: write_records(paths[share::processes], parts[share]))
    writer: pq.ParquetWriter | None = None
    for part in filter(os.path.getsize, parts):
        with pa.memory_map(part) as source:
            table = pa.ipc.open_stream(source).read_all()
            if writer is None:
                writer = pq.ParquetWriter(target, table.schema)
            writer.write_table(table, ROWS)
        os.remove(part)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
