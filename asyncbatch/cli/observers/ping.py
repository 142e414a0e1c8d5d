"""The pings of a monitoring service, in the protocol of healthchecks.io."""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING

from asyncbatch._version import __version__
from asyncbatch.cli import exit_codes
from asyncbatch.cli.display.text import SummaryOptions, headline, report_rows, status_line
from asyncbatch.cli.observers.base import RunObserver
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.core.report import Report
from asyncbatch.core.units import format_count, format_seconds

if TYPE_CHECKING:
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.secrets import Secret
    from asyncbatch.core.tally import FailureBudget

REQUEST_SECONDS = 5.0  # for the connection, and for each part of the answer
END_SECONDS = 5.0  # for the last request, and an earlier one that is still on its way
_RETRY_SECONDS = 0.5  # before the last request is sent again
_MAX_BODY_CHARACTERS = 4000  # healthchecks.io keeps 100 kB, servers of earlier versions 10 kB


class _PingError(Exception):
    """A request that failed. `is_transient`: another try may help."""

    def __init__(self, reason: str, is_transient: bool) -> None:
        super().__init__(reason)
        self.is_transient = is_transient


class Ping(RunObserver):
    """The pings of one run: to URL/start when it begins; to URL, or URL/fail, when it ends.

    Call `begin`, then `end`, or only `fail` for a run that cannot begin. The requests are sent by
    threads, one after the other, so that a slow service never delays the work. A failed request is
    a note on stderr. The note and all other text show the URL without its path, which is secret.
    """

    def __init__(self, url: Secret, budget: FailureBudget | None = None) -> None:
        self._url, self._budget = url, budget
        self._thread: Thread | None = None  # of the last request
        self._error: str | None = None  # of the first request that failed

    def begin(self, report: AnyReport) -> None:  # noqa: ARG002 - as observers have it
        """Send the ping of a run that begins."""
        self._send("/start", None)

    def end(self, report: AnyReport, exit_code: int, wait_s: float = END_SECONDS) -> None:
        """Send the ping of a run that has ended, and wait for the answer."""
        self._finish(exit_code, _outcome(report, exit_code, self._budget), wait_s)

    def fail(self, message: str, exit_code: int) -> None:
        """Send the ping of a run that cannot begin, and wait for the answer."""
        self._finish(exit_code, f"Failed (exit status {exit_code}): {message}\n", END_SECONDS)

    def _finish(self, exit_code: int, text: str, wait_s: float) -> None:
        suffix = "" if exit_code == exit_codes.SUCCESS else "/fail"
        self._send(suffix, text[:_MAX_BODY_CHARACTERS].encode("utf-8", "backslashreplace"))
        error = self._wait(wait_s) or self._error
        if error is not None:
            to_stderr(f"Note: the ping to {self._url} failed: {error}")

    def _wait(self, seconds: float) -> str | None:
        """Wait for the last request. Return an error if it takes longer."""
        try:
            if self._thread is not None:
                self._thread.join(seconds)
                if self._thread.is_alive():
                    return f"no answer within {seconds:g} s"
        except KeyboardInterrupt:  # the user does not want to wait for it
            return "given up"
        return None

    def _send(self, suffix: str, body: bytes | None) -> None:
        """Send a request after the earlier one. A request without body is a GET, else a POST."""
        thread = Thread(
            target=self._request,
            args=(suffix, body, self._thread),
            daemon=True,  # the end of the process does not wait for it
        )
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads of this user or container
            self._error = self._error or str(error)
        else:
            self._thread = thread

    def _request(self, suffix: str, body: bytes | None, earlier: Thread | None) -> None:
        if earlier is not None:
            earlier.join()
        try:
            self._open(suffix, body)
        except _PingError as error:
            if body is not None and error.is_transient:
                # A lost success would be a false alarm; a lost start only hides the duration.
                time.sleep(_RETRY_SECONDS)
                try:
                    self._open(suffix, body)
                except _PingError as again:
                    error = again
                else:
                    return
            self._error = self._error or str(error)

    def _open(self, suffix: str, body: bytes | None) -> None:
        """Send a request and receive the answer. Raises _PingError."""
        # urllib, although aiohttp is there with the extra `http`: a ping must need no extra, and
        # is sent too when the event loop has ended. It obeys the proxies of the environment.
        from base64 import b64encode
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit
        from urllib.request import Request, urlopen

        parts = urlsplit(self._url.reveal())
        path = parts.path.rstrip("/") + suffix
        user, _, host = parts.netloc.rpartition("@")
        url = urlunsplit((parts.scheme, host, path, parts.query, ""))
        headers = {"User-Agent": f"asyncbatch/{__version__}"}
        if body is not None:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        request = Request(url, body, headers)  # noqa: S310 - the option takes http and https only
        if user:  # urllib takes it for a part of the host
            basic = b64encode(unquote_to_bytes(user)).decode()
            request.add_unredirected_header("Authorization", f"Basic {basic}")
        # Messages of exceptions may quote the URL, so only parts that cannot are shown.
        try:
            with urlopen(request, timeout=REQUEST_SECONDS):  # noqa: S310 - as above
                return
        except HTTPError as error:
            error.close()
            raise _PingError(f"HTTP status {error.code}", error.code >= 500) from None
        except OSError as error:
            cause = getattr(error, "reason", error)  # urllib wraps the errors of sockets
            is_late = isinstance(cause, TimeoutError)
            late = f"no answer within {REQUEST_SECONDS:g} s"
            reason = late if is_late else getattr(cause, "strerror", None) or type(cause).__name__
            raise _PingError(reason, True) from None
        except (HTTPException, ValueError) as error:
            raise _PingError(type(error).__name__, False) from None


def _outcome(report: AnyReport, exit_code: int, budget: FailureBudget | None) -> str:
    """Return the status and the counts of a run in a few lines."""
    options = SummaryOptions(exit_code, budget)
    lines = [status_line(report, options)]
    if isinstance(report, Report):
        records = dict(report_rows(report, options))["records"]
        lines += [headline(report), f"Records: {records}"]
    else:
        windows = format_count(report.tally.windows, "window")
        events = format_count(report.read, "event")
        lines.append(f"{events} in {format_seconds(report.elapsed_s)}: {windows}")
    return "".join(f"{line}\n" for line in lines)
