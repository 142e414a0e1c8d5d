"""The delay of timers in an event loop that runs asyncbatch.process_files."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncbatch

TICK = 0.005


async def watch(lags: list[float]) -> None:
    """Sleep repeatedly, and record the excess time of each sleep."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        lags.append(time.perf_counter() - began - TICK)


async def main(folder: str) -> None:
    """Print the lag in milliseconds (median, 99th percentile, maximum) and the records."""
    lags: list[float] = []
    watcher = asyncio.create_task(watch(lags))
    records = 0
    async for result in asyncbatch.process_files(folder):
        records += result.records
    watcher.cancel()
    p50, p99, most = (1e3 * sorted(lags)[int(at * (len(lags) - 1))] for at in (0.5, 0.99, 1.0))
    print(json.dumps({"p50": p50, "p99": p99, "max": most, "records": records}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
