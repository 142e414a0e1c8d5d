"""Notices to systemd about a service: ready, alive, stopping."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


class ServiceNotices:
    """Tells systemd that the service is ready, and then that it is alive.

    It does nothing unless systemd asks for it with `NOTIFY_SOCKET` (`Type=notify`), and says that
    the service is alive only if `WATCHDOG_USEC` is set (`WatchdogSec=`). Call `tick` often.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._alive_seconds: float | None = None  # between two notices
        with suppress(ValueError):
            is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
            micros = int(os.environ.get("WATCHDOG_USEC", "0"))
            if is_ours and micros > 0:
                self._alive_seconds = micros / 1e6 / 2
        self._is_ready = False
        self._alive_at = 0.0

    def tick(self) -> None:
        """Send the notices that are due."""
        if not self._address:
            return
        if not self._is_ready:
            self._is_ready = True
            self._send("READY=1")
        now = time.monotonic()
        if self._alive_seconds is not None and now - self._alive_at >= self._alive_seconds:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the service ends, because of a signal."""
        if self._address:
            self._send("STOPPING=1")

    def _send(self, notice: str) -> None:
        # A name that begins with "@" is one of the abstract namespace.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.setblocking(False)
            link.sendto(notice.encode(), address)
