"""Events in windows of five seconds: a count and a sum for each type."""

from __future__ import annotations

import shlex
from statistics import median
from typing import TYPE_CHECKING

import orjson

from benchmarks import goals
from benchmarks.events import DISORDER_MS, events, rich_events
from benchmarks.measure import CommandError
from benchmarks.promptness import RATE, delays_ms
from benchmarks.races import CPUS, Racer, peer, race
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

EVENTS, RICH_EVENTS, QUICK_EVENTS = 2_000_000, 500_000, 100_000


class _Windows:
    """A check that all racers find the same windows. Sums may differ by rounding."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[int, float]] = {}

    def check(self, output: bytes) -> None:
        """Raise CommandError if the windows differ from those of the first racer."""
        found = {}
        for line in output.splitlines():
            one = orjson.loads(line)
            of = one.get("aggregates", one)
            key = (one["window_start"][:19], one.get("key", one)["event_type"])
            found[key] = (of["count"], round(of["sum_value"], 3))
        self._first = self._first or found
        if found != self._first or not found:
            other = [
                key for key in {**found, **self._first} if found.get(key) != self._first.get(key)
            ]
            raise CommandError(f"other windows than the first found: {other[:5]}")


def put_into_windows(setting: Setting) -> None:
    """Compare with DuckDB, which starts when all events are there, and with Bytewax."""
    _put(setting, "small events", events(setting, setting.size(EVENTS, QUICK_EVENTS)))
    _put(setting, "rich events", rich_events(setting, setting.size(RICH_EVENTS, QUICK_EVENTS)))
    _tell_promptness(setting)


def _put(setting: Setting, shape: str, corpus: Corpus) -> None:
    path, check = corpus.path, _Windows().check
    words = f"--by event_type --agg count --agg sum:value --lateness {DISORDER_MS}ms -q".split()
    ours = [setting.asyncbatch, "stream"]
    piped = f"cat {shlex.quote(path)} | {shlex.join([*ours, '-', *words])}"
    racers = [
        Racer("asyncbatch stream FILE", [*ours, path, *words], check),
        Racer("asyncbatch stream -", ["sh", "-c", piped], check),
        Racer("asyncbatch stream --workers 0", [*ours, path, *words, "-w", "0"], check),
        Racer("DuckDB, offline SQL", peer("duckdb_windows", path), check, goals.STREAM_DUCKDB),
        Racer(
            f"floor, {CPUS} processes",
            peer("floor_windows", str(CPUS), path, setting.output("totals")),
            check,
        ),
        Racer(
            "Bytewax",
            peer("bytewax_windows", path),
            check,
            goals.STREAM_BYTEWAX,
            rounds=setting.slow_rounds,
            needs="bytewax",
        ),
    ]
    race(setting, shape, corpus, racers)


def _tell_promptness(setting: Setting) -> None:
    """Print the delay of windows at a steady rate of events."""
    words = ["stream", "-", "--window", "tumbling:100ms", "--agg", "count", "-q"]
    rows = []
    for name, more in (("", []), (" --jq .", ["--jq", "."])):
        delays = sorted(delays_ms([setting.asyncbatch, *words, *more]))
        middle, most = median(delays), delays[-1]
        p99 = delays[len(delays) * 99 // 100]
        cells = setting.results.add(goals.STREAM_DELAY, f"stream -{name}", middle)
        rows.append(
            [f"asyncbatch stream -{name}", f"{middle:.2f}", f"{p99:.2f}", f"{most:.2f}", *cells]
        )
    print(f"{RATE:,} events/s through a pipe: from the event that ends a window to its line")
    print_table(("", "p50 ms", "p99 ms", "max ms", "goal (p50)", ""), rows)
