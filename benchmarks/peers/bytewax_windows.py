"""Windows of five seconds with Bytewax, in one worker."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from bytewax import operators as op
from bytewax.connectors.files import FileSource
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing as w
from bytewax.testing import run_main

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SIZE = timedelta(seconds=5)
# More than the disorder, because its watermark also advances with the system clock.
PATIENCE = timedelta(seconds=2)


def main(path: str) -> None:
    """Print a line of JSON for each window and type."""
    flow = Dataflow("windows")
    lines = op.input("in", flow, FileSource(Path(path), batch_size=1000))
    events = op.map("decode", lines, _decode)
    keyed = op.key_on("key", events, lambda event: event[1])
    clock = w.EventClock(
        ts_getter=lambda event: event[0],
        wait_for_system_duration=PATIENCE,
    )
    windower = w.TumblingWindower(length=SIZE, align_to=EPOCH)
    totals = w.fold_window(
        "fold", keyed, clock, windower, lambda: (0, 0.0),
        lambda sum_, event: (sum_[0] + 1, sum_[1] + event[2]),
        lambda ours, theirs: (ours[0] + theirs[0], ours[1] + theirs[1]),
    )  # fmt: skip
    op.output("out", op.map("encode", totals.down, _encode), StdOutSink())
    run_main(flow)


def _decode(line: str) -> tuple[datetime, str, float]:
    event = orjson.loads(line)
    return datetime.fromisoformat(event["timestamp"]), event["event_type"], event["value"]


def _encode(found: tuple[str, tuple[int, tuple[int, float]]]) -> str:
    key, (number, (count, total)) = found
    start = (EPOCH + number * SIZE).isoformat()
    told = {"window_start": start, "event_type": key, "count": count, "sum_value": total}
    return orjson.dumps(told).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
