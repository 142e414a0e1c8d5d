"""Tests of the live display on a real terminal: typed keys, stops, widths."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.commands import COMMAND, environment
from tests.processes import wait_until

LONG = "a-long-folder-name/that-goes-on/and-on/2024-01-01/with-a-long-name-of-a-file-0001.json"


def become_shell(folder, arguments, told):
    """Run the command in the foreground, as a shell does, and end with its status.

    Without a shell that could continue it, the system stops no process at Ctrl-Z.
    """
    os.closerange(3, told)  # a pipe of the test, which would have no end
    os.closerange(told + 1, 1000)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    pid = os.fork()
    os.setpgid(pid, pid)
    os.tcsetpgrp(0, pid or os.getpid())
    if not pid:
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.chdir(folder)
        os.execve(COMMAND[0], [*COMMAND, *arguments], environment())
    os.write(told, b"%d" % pid)
    _, ended = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(ended))


class Terminal:
    """A command under a shell on a pseudo-terminal of its own."""

    def __init__(self, folder, *arguments, columns=80):
        self.screen = b""
        told, tell = os.pipe()
        self._shell, self._terminal = pty.fork()
        if not self._shell:
            try:
                become_shell(folder, arguments, tell)
            finally:
                os._exit(127)
        os.set_blocking(self._terminal, False)
        self.resize(columns)
        self.pid = int(os.read(told, 100))
        os.close(told)
        os.close(tell)

    def resize(self, columns):
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def read(self):
        """Return all output so far."""
        with suppress(BlockingIOError, OSError):  # EIO: the command has ended
            while data := os.read(self._terminal, 65536):
                self.screen += data
        return self.screen

    def type(self, keys):
        os.write(self._terminal, keys)

    @property
    def unread(self):
        """The number of typed bytes that the command could read: those of whole lines."""
        terminal = os.open(f"/proc/{self.pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return int.from_bytes(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)), sys.byteorder)
        finally:
            os.close(terminal)

    @property
    def has_echo(self):
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    @property
    def is_stopped(self):
        return "\nState:\tT" in Path(f"/proc/{self.pid}/status").read_text()

    def wait(self):
        """Wait for the end; return the exit status."""
        ended: list[int] = []

        def has_ended():
            self.read()  # a full terminal would hold it up
            ended[:] = os.waitpid(self._shell, os.WNOHANG)
            return ended[0] == self._shell

        wait_until(has_ended)
        self.read()
        return os.waitstatus_to_exitcode(ended[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._shell, 0)
        os.close(self._terminal)


@pytest.fixture
def waiting(files):
    """A run with a live display that waits for a pipe; and the pipe."""
    folder = files({})
    os.mkfifo(folder / "pipe")
    with (
        (folder / "pipe").open("r+b", buffering=0) as pipe,
        Terminal(folder, "run", "pipe") as terminal,
    ):
        wait_until(lambda: b"0 of 1 file" in terminal.read())
        yield terminal, pipe


def test_typed_keys_are_not_echoed_while_the_display_is_there(waiting):
    terminal, pipe = waiting
    assert not terminal.has_echo
    terminal.type(b"KEYS\r")
    wait_until(lambda: terminal.unread == len("KEYS\n"))  # the system takes keys when it has time
    pipe.write(b"[1]")
    pipe.close()
    assert terminal.wait() == 0
    assert b"KEYS" not in terminal.screen
    assert terminal.has_echo
    assert terminal.screen.rindex(b"\x1b[?25h") > terminal.screen.rindex(b"\x1b[?25l")


@pytest.mark.parametrize("keys", [b"\x03\x03", None])
def test_a_stop_gives_the_echo_back(waiting, keys):
    """By Ctrl-C twice, or SIGTERM."""
    terminal, pipe = waiting
    if keys:
        terminal.type(keys[:1])
        wait_until(lambda: b"Stopping" in terminal.read())
        terminal.type(keys[1:])
    else:
        os.kill(terminal.pid, signal.SIGTERM)
        wait_until(lambda: b"Stopping" in terminal.read())
        pipe.close()
    assert terminal.wait() == (130 if keys else 143)
    assert terminal.has_echo


def test_ctrl_z_leaves_the_terminal_to_the_shell_and_fg_takes_it_back(waiting):
    terminal, pipe = waiting
    terminal.type(b"\x1a")
    wait_until(lambda: terminal.is_stopped)
    terminal.read()
    assert terminal.has_echo
    assert terminal.screen.rindex(b"\x1b[?25h") > terminal.screen.rindex(b"\x1b[?25l")
    shown = len(terminal.screen)
    os.kill(terminal.pid, signal.SIGCONT)
    wait_until(lambda: b"0 of 1 file" in terminal.read()[shown:])
    assert not terminal.has_echo
    pipe.write(b"[1]")
    pipe.close()
    assert terminal.wait() == 0
    assert terminal.has_echo


def test_what_the_user_types_as_input_is_echoed(files):
    with Terminal(files({}), "run", "-") as terminal:
        terminal.type(b"[1, 2]\n\x04\x04")
        assert terminal.wait() == 0
    assert b"[1, 2]" in terminal.screen
    assert b"\x1b[?25l" not in terminal.screen


def test_the_prints_of_a_call_are_lines_above_the_display(files):
    """They come from a worker, and follow a line end or an erased row."""
    call = "import time\n\ndef f(record):\n    time.sleep(0.1)\n    print('seen', record)\n"
    folder = files({"f.py": call, "a.jsonl": "".join(f"{n}\n" for n in range(8))})
    with Terminal(folder, "run", "a.jsonl", "--call", "f.py:f", "-w", "1") as terminal:
        assert terminal.wait() == 0
    assert b"0 of 1 file" in terminal.screen
    assert terminal.screen.count(b"seen ") == 8
    assert not re.search(rb"[^\nK]seen \d", terminal.screen)


def rows_of(screen):
    """Return the lines of a summary."""
    return screen.decode().replace("\r", "").splitlines()


def test_the_summary_fits_into_80_columns_and_breaks_no_path(files):
    folder = files({LONG: '{"id": NaN, "x": 1}', "b.json": "1"})
    with Terminal(folder, "run", ".", "--no-progress", "--color", "never") as terminal:
        assert terminal.wait() == 1
    lines = rows_of(terminal.screen)
    place = f"  ./{LONG}:1:8:"
    assert place in lines
    assert lines[lines.index(place) + 1].startswith("    expected a value, found 'NaN'")
    assert all(len(line) <= 80 for line in lines if line != place)
    stripped = " ".join(line.strip() for line in lines)
    assert "write null or a string) (byte 7)" in stripped


def test_an_error_fits_into_40_columns(files):
    with Terminal(files({"a.json": "1"}), "run", ".", "--to", "a.xlsx", columns=40) as terminal:
        assert terminal.wait() == 2
    lines = rows_of(terminal.screen)
    assert all(len(line) <= 40 for line in lines)
    assert "for a spreadsheet write a.csv" in " ".join(line.strip() for line in lines)


def test_the_rows_that_a_narrower_terminal_wraps_are_erased(waiting):
    """The second of two lines has two rows of 40 columns: one more to erase than was drawn."""
    terminal, _ = waiting
    shown = len(terminal.read())
    terminal.resize(40)
    row_above = b"\r\x1b[2K\x1b[1A\x1b[2K"
    wait_until(lambda: row_above * 2 in terminal.read()[shown:])
