"""Streams that go on for minutes, side by side, and must not grow.

`python -m tests.chaos.soak --seconds 480` prints the memory of each, main process and workers, in
the first and in the second half, and fails if the second is larger, or if events are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import IO, NamedTuple

import psutil

from asyncbatch.windows.times import utc_text

COMMAND = (sys.executable, "-m", "asyncbatch")
PROGRAM = """\
def work(event):
    if event["number"] % 1000 == 1:
        raise ValueError("no such number")
    return {**event, "value": event["value"] * 2}

async def work_async(event):
    return work(event)
"""
AGGREGATES = ("--agg", "count", "--agg", "sum:value", "--agg", "p95:value", "--agg", "stddev:value")
_TRICKLE = 500
"""Events a second."""
_GROWTH_SHARE, _GROWTH_BYTES = 1.05, 4_000_000
"""What the second half may have more than the first: a share, or so many bytes."""
_SETTLED = 0.1
"""The share of the time after which a stream has what it needs."""


class Case(NamedTuple):
    """A stream: its arguments, and what feeds it ("" for nobody)."""

    name: str
    arguments: tuple[str, ...]
    feed: str = ""
    windows_each: int = 1
    """How many windows an event is in."""


CASES = (
    Case(
        "simulated",
        (*("simulate:", "--rate", "500", "--users", "100", "--by", "user_id"),
         *("--window", "hopping:2s/500ms"), *AGGREGATES),
        windows_each=4,
    ),
    Case(
        "piped masses",
        (*("-", "--by", "user_id", "--lateness", "400ms", "--late", "late.jsonl"),
         *("--window", "tumbling:5s"), *AGGREGATES),
        "masses",
    ),
    Case(
        "piped sessions",
        ("-", "--by", "key", "--window", "session:300ms", "--lateness", "1s", *AGGREGATES),
        "trickle",
    ),
    Case(
        "piped programs",
        ("-", "--by", "key", "--window", "tumbling:1s", "--call", "program.py:work", *AGGREGATES),
        "trickle",
    ),
    Case(
        "async programs",
        (*("-", "--by", "key", "--window", "tumbling:1s", "--call", "program.py:work_async"),
         *AGGREGATES),
        "trickle",
    ),
)  # fmt: skip


class Soaked:
    """A stream that runs, what it has printed counted, its memory sampled."""

    def __init__(self, case: Case, folder: Path, stop: threading.Event) -> None:
        self.name, self._windows_each = case.name, case.windows_each
        folder.mkdir()
        (folder / "program.py").write_text(PROGRAM)
        self._feeder: subprocess.Popen[bytes] | None = None
        stdin: IO[bytes] | int = subprocess.DEVNULL
        if case.feed == "masses":
            # Half a second out of order, of which 400 ms are waited for: some are late.
            words = ("generate", "events", "--count", str(10**12), "--rate", "10000",
                     "--disorder", "500ms")  # fmt: skip
            self._feeder = subprocess.Popen((*COMMAND, *words), stdout=subprocess.PIPE)
            stdin = self._feeder.stdout or stdin
        elif case.feed:
            stdin = subprocess.PIPE
        self._errors = (folder / "stderr").open("w+b")
        self._process = subprocess.Popen(
            (*COMMAND, "stream", *case.arguments),
            stdin=stdin, stdout=subprocess.PIPE, stderr=self._errors, cwd=folder,
        )  # fmt: skip
        if self._feeder is not None and self._feeder.stdout is not None:
            self._feeder.stdout.close()
        self._counted = 0
        self.samples: list[int] = []
        threads = [threading.Thread(target=self._count)]
        if case.feed == "trickle":
            threads.append(threading.Thread(target=self._trickle, args=(stop,)))
        self._threads = threads
        for thread in threads:
            thread.start()

    @property
    def counted(self) -> int:
        """How many events its windows have told of."""
        return self._counted // self._windows_each

    def sample(self) -> None:
        """Take note of the memory of all its processes."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            self.samples.append(
                sum(one.memory_info().rss for one in (main, *main.children(recursive=True)))
            )

    def stop(self) -> str:
        """Have it stop; return what is wrong with how it did."""
        self._process.send_signal(signal.SIGINT)
        if self._feeder is not None:
            self._feeder.kill()
            self._feeder.wait()
        code = self._process.wait(timeout=60)
        for thread in self._threads:
            thread.join()
        self._errors.seek(0)
        errors = self._errors.read().decode()
        self._errors.close()
        found = re.search(r"events   ([0-9,]+) in windows", errors)
        told = int(found[1].replace(",", "")) if found else -1
        if code:
            return f"exit status {code}: {errors[-500:]}"
        return (
            ""
            if told * self._windows_each == self._counted
            else f"{self.counted:,} of {told:,} events in windows"
        )

    def halves(self) -> tuple[float, float]:
        """Return the mean memory of the first and the second half, once it had settled."""
        settled = self.samples[int(len(self.samples) * _SETTLED) :]
        middle = len(settled) // 2
        return mean(settled[:middle]), mean(settled[middle:])

    def _count(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # of a line that broke off, as an exit status will tell
            for line in self._process.stdout:
                self._counted += json.loads(line)["aggregates"]["count"]

    def _trickle(self, stop: threading.Event) -> None:
        """Write events of now, whose keys come and go, some of them late or nonsense."""
        pipe, number = self._process.stdin, 0
        assert pipe is not None
        with suppress(BrokenPipeError):
            while not stop.wait(0.05):
                now = time.time_ns() // 1000
                lines = []
                for _ in range(_TRICKLE // 20):
                    number += 1
                    late = 3_600_000_000 if number % 500 == 0 else 0
                    event = {"timestamp": utc_text(now - late), "key": f"k{number // 50}"}
                    lines.append(
                        json.dumps({**event, "value": number % 77 + 0.1, "number": number})
                    )
                if number % 2000 < _TRICKLE // 20:
                    lines.append("nonsense")
                pipe.write("".join(f"{line}\n" for line in lines).encode())
                pipe.flush()
            stop.wait()
        with suppress(BrokenPipeError):
            pipe.close()


def main() -> int:
    """Run all streams; return 1 if one has grown, or lost something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=480.0)
    options = parser.parse_args()
    os.environ["CI"] = "true"  # no live tables
    stop, failed = threading.Event(), False
    with tempfile.TemporaryDirectory() as folder:
        streams = [Soaked(case, Path(folder, str(place)), stop) for place, case in enumerate(CASES)]
        until = time.monotonic() + options.seconds
        while time.monotonic() < until:
            time.sleep(min(1.0, options.seconds / 60))
            for stream in streams:
                stream.sample()
        print(f"{'stream':15} {'events':>13} {'1st half':>10} {'2nd half':>10} {'peak':>10}")
        for stream in streams:
            problem = stream.stop()
            first, second = stream.halves()
            if second > max(first * _GROWTH_SHARE, first + _GROWTH_BYTES):
                problem = problem or "it grows"
            failed = failed or bool(problem)
            memory = "".join(
                f"{size / 1e6:7.1f} MB " for size in (first, second, max(stream.samples))
            )
            print(f"{stream.name:15} {stream.counted:13,} {memory} {problem or 'flat'}", flush=True)
        stop.set()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
