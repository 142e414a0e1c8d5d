"""What a command takes, with all processes it starts: time, and the most memory at once."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SAMPLE_SECONDS = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")
SESSION, RSS = 3, 21
"""Fields of /proc/PID/stat, counted after the command's name."""


class CommandError(Exception):
    """A command that failed, or did another job than it should."""


class Outcome(NamedTuple):
    """Wall time, what was printed and, if it was watched, the peak of all processes' memory."""

    seconds: float
    output: bytes
    peak_bytes: int


def measure(command: Sequence[str], *, memory: bool = False) -> Outcome:
    """Carry out a command, its output into a file; watch memory only if asked to.

    Raises CommandError if it fails.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            peak = _watch(process) if memory else 0
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - began
        output.seek(0)
        errors.seek(0)
        if status:
            detail = errors.read().decode(errors="replace")[-1000:]
            raise CommandError(f"{' '.join(command)[:300]}: exit status {status}\n{detail}")
        return Outcome(seconds, output.read(), peak)


def interleave(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    before: Callable[[], object] = lambda: None,
    check: Callable[[str, bytes], object] = lambda _name, _output: None,
    clock: Callable[[str, Outcome], float] = lambda _name, outcome: outcome.seconds,
    fewer: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, list[float]]:
    """Time commands in turn, round after round, so that a busy moment hits none alone.

    `check` gets each command's name and output, outside the measured time. `clock` may say that
    another time counts than the whole process's; `fewer` has the slow ones' rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name, command in commands.items():
            if turn >= fewer.get(name, rounds):
                continue
            before()
            outcome = measure(command)
            check(name, outcome.output)
            times[name].append(clock(name, outcome))
    return times


def _watch(process: subprocess.Popen[bytes]) -> int:
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(process.pid))
        time.sleep(SAMPLE_SECONDS)
    return peak


def _resident_bytes(session: int) -> int:
    """Add up a session's processes; pages that some of them share count in each."""
    pages = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:  # has just ended
            continue
        if int(fields[SESSION]) == session:
            pages += int(fields[RSS])
    return pages * PAGE
