"""Time and peak memory of a command, with all processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

SAMPLE_SECONDS = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")
SESSION, RSS = 3, 21  # fields of /proc/PID/stat, counted after the name of the command


class CommandError(Exception):
    """A command that failed, or gave a wrong result."""


class Outcome(NamedTuple):
    """The wall time, output and peak memory of a command."""

    seconds: float
    output: bytes
    peak_bytes: int  # of all processes together; 0 if the memory was not measured


def measure(command: Sequence[str], *, memory: bool = False) -> Outcome:
    """Run a command with its output in a file. Measure its memory only if `memory`.

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
    failures: dict[str, str] | None = None,
    spared: Collection[str] = (),
) -> dict[str, list[float]]:
    """Time commands in turn for some rounds, so that a busy moment affects all of them.

    Every second round goes through them backwards.
    `check` gets the name and output of each command, outside of the measured time. `clock` may
    return another time than that of the whole process. `fewer` has the rounds of slow commands.
    A command of `spared` that fails, or whose result is wrong, is left out from then on, and
    `failures` gets the reason. Any other failure raises CommandError.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    failures = {} if failures is None else failures
    for turn in range(rounds):
        for name in list(commands)[:: -1 if turn % 2 else 1]:
            if turn >= fewer.get(name, rounds) or name in failures:
                continue
            before()
            try:
                outcome = measure(commands[name])
                check(name, outcome.output)
            except CommandError as error:
                if name not in spared:
                    raise
                failures[name] = str(error)
                continue
            times[name].append(clock(name, outcome))
    return times


def _watch(process: subprocess.Popen[bytes]) -> int:
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(process.pid))
        time.sleep(SAMPLE_SECONDS)
    return peak


def _resident_bytes(session: int) -> int:
    """Return the memory of all processes of a session.

    Pages that processes share count in each of them.
    """
    pages = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:  # the process has just ended
            continue
        if int(fields[SESSION]) == session:
            pages += int(fields[RSS])
    return pages * PAGE
