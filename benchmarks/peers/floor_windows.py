"""The floor of windows: bare processes that decode events, count them and add their values."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict

import msgspec

from benchmarks.peers.forks import divide

BLOCK = 4 << 20  # bytes of the events that are decoded together
SECONDS = 5  # of a window


class Event(msgspec.Struct, gc=False):
    """The fields of an event that the windows need."""

    timestamp: str
    event_type: str
    value: float


def write_totals(path: str, start: int, end: int, target: str) -> int:
    """Write the totals of each second of the lines that begin in a range of a file; count these."""
    decode = msgspec.json.Decoder(Event).decode_lines
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    with open(path, "rb") as stream:
        if start:
            stream.seek(start - 1)
            stream.readline()
        while (left := end - stream.tell()) > 0:
            block = stream.read(min(BLOCK, left))
            if not block.endswith(b"\n"):
                block += stream.readline()
            for event in decode(block):
                key = event.timestamp[:19], event.event_type
                counts[key] += 1
                sums[key] += event.value
    with open(target, "w", encoding="utf-8") as output:
        json.dump([(*key, count, sums[key]) for key, count in counts.items()], output)
    return sum(counts.values())


def main(processes: int, path: str, target: str) -> None:
    """Divide a file among processes. Print a line of JSON for each window and type."""
    size = os.path.getsize(path)
    bounds = [size * share // processes for share in range(processes + 1)]
    parts = [f"{target}.{share}" for share in range(processes)]
    divide(
        processes,
        lambda share: write_totals(path, bounds[share], bounds[share + 1], parts[share]),
    )
    totals: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for part in parts:
        with open(part, encoding="utf-8") as source:
            for second, event_type, count, value in json.load(source):
                start = f"{second[:17]}{int(second[17:]) // SECONDS * SECONDS:02}"
                total = totals[start, event_type]
                total[0] += count
                total[1] += value
        os.remove(part)
    for (start, event_type), (count, value) in totals.items():
        names = {"window_start": start, "event_type": event_type}
        print(json.dumps({**names, "count": count, "sum_value": value}))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
