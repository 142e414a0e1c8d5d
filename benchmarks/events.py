"""A stream's events: four types, half a second out of order, as asyncbatch itself makes them."""

from __future__ import annotations

import os
import subprocess

from benchmarks.corpora import SEED, Corpus

RATE = 10_000
START = "2026-01-01T00:00:00Z"
DISORDER_MS = 500


def events(asyncbatch: str, data: str, count: int) -> Corpus:
    """Return a file of so many events, as JSON Lines."""
    path = os.path.join(data, f"events-{count}.jsonl")
    if not os.path.exists(path):
        print(f"generating {os.path.basename(path)} ...", flush=True)
        options = {
            "--count": count,
            "--rate": RATE,
            "--seed": SEED,
            "--start": START,
            "--disorder": f"{DISORDER_MS}ms",
            "--to": path,
        }
        words = [str(word) for option in options.items() for word in option]
        subprocess.run([asyncbatch, "generate", "events", *words], check=True)
    return Corpus(path, 1, os.path.getsize(path), count)
