"""The delay between the event that ends a window and the printed window."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import TYPE_CHECKING

import orjson

from benchmarks.measure import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE = 10_000  # events per second
_SECONDS = 5
_WINDOW_MS = 100
_TOGETHER_MS = 5  # events of this time are written together: sleeps in Python are not exact
_SETTLING = 10  # windows at the start that are not counted, while programs start
_START_MS = 1_767_225_600_000


def delays_ms(command: Sequence[str]) -> list[float]:
    """Return the delay of each window that an event ended, until it was printed.

    `command` reads standard input and puts it into windows of 100 ms. Raises CommandError if a
    window is missing.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    printed: list[tuple[float, bytes]] = []
    output = process.stdout
    reader = threading.Thread(
        target=lambda: printed.extend((time.perf_counter(), line) for line in output)
    )
    reader.start()
    written: list[float] = []
    began = time.perf_counter()
    each = RATE * _TOGETHER_MS // 1000
    for turn in range(_SECONDS * 1000 // _TOGETHER_MS):
        time.sleep(max(0.0, began + turn * _TOGETHER_MS / 1000 - time.perf_counter()))
        at = _START_MS + turn * _TOGETHER_MS
        lines = b"".join(
            b'{"timestamp": %d, "event_type": "view", "value": %d}\n' % (at, number)
            for number in range(each)
        )
        if turn * _TOGETHER_MS % _WINDOW_MS == 0:
            written.append(time.perf_counter())
        process.stdin.write(lines)
        process.stdin.flush()
    process.stdin.close()
    reader.join()
    if process.wait():
        raise CommandError(f"{command[0]}: exit status {process.returncode}")
    counts = [orjson.loads(line)["aggregates"]["count"] for _, line in printed]
    if counts != [RATE * _WINDOW_MS // 1000] * (_SECONDS * 1000 // _WINDOW_MS):
        raise CommandError(f"{command[0]}: {len(counts)} windows, of {set(counts)} events")
    # The first event of the next window ends a window. The end of the input ends the last one.
    pairs = zip(printed, written[1:], strict=False)
    return [(shown - ended) * 1000 for (shown, _), ended in pairs][_SETTLING:]
