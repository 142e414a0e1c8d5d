"""Slow storage: dropped caches, and a delay in every open."""

from __future__ import annotations

import os
import shutil
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.measure import CommandError, interleave, measure
from benchmarks.races import peer
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

DROP_CACHES = "/proc/sys/vm/drop_caches"
DELAY_MICROSECONDS = 5000
DELAYED_FOLDERS = 30
STRACE = (
    *("strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=openat"),
    *("-e", f"inject=openat:delay_enter={DELAY_MICROSECONDS}"),
)


def read_cold(setting: Setting) -> None:
    """Compare with threads that only read the mixed corpus, with caches dropped."""
    if not os.access(DROP_CACHES, os.W_OK):
        print(f"left out: {DROP_CACHES} is not writable (it takes root)\n")
        return
    corpus = filesets.mixed(setting)
    commands = {
        "32 threads, only reading": peer("read_threads", corpus.path),
        "asyncbatch run": [setting.asyncbatch, "run", corpus.path],
    }
    times = interleave(commands, setting.rounds, before=_drop_caches)
    floor = median(times["32 threads, only reading"])
    print(f"{corpus}; {setting.rounds} rounds, caches dropped before each")
    rows = []
    for name, taken in times.items():
        seconds = median(taken)
        goal = ("", "")
        if name.startswith("asyncbatch"):
            goal = setting.results.add(goals.COLD, "log-normal sizes", seconds / floor)
        spread = f"{min(taken):.2f}-{max(taken):.2f}"
        rows.append([name, f"{seconds:.2f}", spread, f"{seconds / floor:.2f}x", *goal])
    print_table(("", "median s", "range s", "/reading", "goal", ""), rows)


def open_slowly(setting: Setting) -> None:
    """Delay every open by 5 ms. Subtract the time of one file, which is start-up."""
    if shutil.which("strace") is None:
        print("left out: strace is not installed\n")
        return
    corpus = filesets.tiny(setting)
    folders = corpus.subfolders()[:DELAYED_FOLDERS]
    files = sum(len(os.listdir(folder)) for folder in folders)
    run = (*STRACE, setting.asyncbatch, "run")
    one_file, all_files = (*run, *corpus.some_files(1)), (*run, *folders)
    try:
        measure((*STRACE, "true"))
    except CommandError as error:
        print(f"left out: strace does not work here: {error}\n")
        return
    times = interleave({"one": one_file, "all": all_files}, setting.size(3, 1))
    start, whole = median(times["one"]), median(times["all"])
    rate = files / (whole - start)
    delay = DELAY_MICROSECONDS / 1000
    print(f"{files:,} tiny files, {delay:g} ms in every open (one at a time: {1000 / delay:g}/s)")
    row = ["asyncbatch run", f"{whole:.2f}", f"{start:.2f}", f"{rate:,.0f}"]
    header = ("", "median s", "one file s", "files/s", "goal", "")
    print_table(header, [[*row, *setting.results.add(goals.DELAY, "tiny, generated", rate)]])


def _drop_caches() -> None:
    os.sync()
    with open(DROP_CACHES, "w", encoding="ascii") as stream:
        stream.write("3\n")
