"""The live page of a run: the components of the HTML report, rendered while the work goes on."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from asyncbatch.cli import exit_codes
from asyncbatch.cli.display.progress_lines import PaceMeter
from asyncbatch.cli.live.address import Access, ListenSocket
from asyncbatch.cli.live.progress import StreamPace, run_progress, stream_progress
from asyncbatch.cli.live.server import LiveServer, sse_event
from asyncbatch.cli.observers.base import RunObserver
from asyncbatch.cli.render import html
from asyncbatch.cli.render.json import report_object
from asyncbatch.cli.render.samples import MessageCounts, Samples
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.core.batches import BatchPart
from asyncbatch.core.report import StreamReport
from asyncbatch.core.system import install_command
from asyncbatch.core.units import format_remaining
from asyncbatch.errors import UsageError
from asyncbatch.workers.wire import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.display.stream_output import StreamPart
    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.records import Failure
    from asyncbatch.core.report import AnyReport

_MAX_LATEST_FAILURES = 100
# Seconds between two renderings of a part.
_QUICK_SECONDS = 0.5  # numbers
_SLOW_SECONDS = 1.0  # charts and tables
_FILES_SECONDS = 5.0  # the chart of up to 2,000 files
_MAX_RENDERING_SHARE = 0.02  # of the time of the main process

# The places of the page, in order. Each is filled by events; the charts are drawn by the script.
_PLACES = ("progress", "counts", "charts", "sources", "slowest", "windows", "failures", "settings")


class LivePage(RunObserver):
    """The live page of one run: an observer that renders what the open pages show.

    It listens from the beginning, so that a wrong address is an error of usage. Parts are rendered
    only while a page is open. Samples and lists are bounded, as those of the HTML report. With
    `hold`, the page stays after the end of the run. Raises UsageError.
    """

    shows_details = True

    def __init__(self, address: str, command: str, *, hold: bool) -> None:
        if find_spec("aiohttp") is None:
            raise UsageError(f"--live needs one more package: {install_command('http')}")
        self._command, self._hold = command, hold
        listening = ListenSocket.open(address)
        access = Access.of(listening)
        to_stderr(_announcement(listening, access))
        page, policy = _skeleton(command)
        # A page that connects to another run, on the same port, begins anew.
        greeting = sse_event("hello", {"run": secrets.token_hex(8)})
        self._server = LiveServer(listening, access, page, policy, greeting)
        self._samples = Samples()
        self._pace, self._stream_pace = PaceMeter(), StreamPace()
        self._latest: deque[Failure] = deque(maxlen=_MAX_LATEST_FAILURES)  # the newest first
        self._due: dict[str, float] = {}  # when a part is to be rendered again
        self._next = 0.0

    def begin(self, report: AnyReport) -> None:  # noqa: ARG002 - as observers have it
        """Start to serve."""
        self._server.start()

    def snapshot(self, snapshot: Any, report: AnyReport) -> None:
        """Take a point of the charts; render the parts that are due, if a page is open."""
        self._samples.update(report)
        pace: Any  # the rates are recent ones, so each snapshot is measured
        if isinstance(report, StreamReport):
            pace = self._stream_pace.measure(snapshot)
        else:
            pace = self._pace.measure(snapshot)
        now = time.monotonic()
        if self._server.has_readers and now >= self._next:
            self._server.publish(dict(self._due_parts(snapshot, pace, report, now)))
            ended = time.monotonic()
            self._next = ended + (ended - now) / _MAX_RENDERING_SHARE

    def part(self, found: Outcomes) -> None:
        """Take some of the finished files or windows, and the latest failures."""
        self._samples.part(found)
        if isinstance(found, BatchPart):
            self._latest.extendleft(failure for _, failure in found.part.failures())
        else:
            failures = cast("StreamPart", found).failures
            # Late events are counted, and are no failures.
            self._latest.extendleft(one for one in failures if one.kind != "late")

    def end(self, report: AnyReport, exit_code: int, wait_s: float) -> None:
        """Send the end to the open pages."""
        if self._server.has_readers or self._hold:
            self._samples.end(report)
            self._server.finish(dict(self._last_parts(report, exit_code)), wait_s)

    def linger(self, exit_code: int) -> None:
        """Keep the page until a signal, if the user asked for that and there was a run."""
        try:
            if self._hold and exit_code != exit_codes.USAGE and self._server.is_alive:
                asyncio.run(_wait_for_signal())
        except KeyboardInterrupt:
            pass  # it came before the handler was set
        self._server.stop()

    def _due_parts(
        self, snapshot: Any, pace: Any, report: AnyReport, now: float
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the parts that are due, each by its name as an event."""
        if self._is_due("numbers", now, _QUICK_SECONDS):
            yield "progress event", self._progress_event(pace, report)
            yield _section("header", _running_header(report, self._command))
            yield _section("counts", html.counts(report))
            if isinstance(report, StreamReport):
                yield _section("progress", stream_progress(snapshot, pace))
            else:
                yield _section("progress", run_progress(snapshot, pace, report.input_noun))
        if self._is_due("tables", now, _SLOW_SECONDS):
            columns = self._samples.columns
            yield "series", sse_event("charts", {n: columns[n] for n in ("series", "windows")})
            yield from self._tables(report)
            messages = self._messages(report)
            yield _section("failures", "".join(html.failures(report, messages, self._latest)))
            yield _section("settings", "".join(html.settings(report)))
        if self._is_due("files", now, _FILES_SECONDS):
            yield "files", sse_event("charts", {"files": self._samples.files.columns})

    def _is_due(self, name: str, now: float, seconds: float) -> bool:
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + seconds
        return True

    def _last_parts(self, report: AnyReport, exit_code: int) -> Iterator[tuple[str, bytes]]:
        """Yield all parts as the HTML report has them, then the end."""
        yield _section("header", html.header(report, self._command, exit_code))
        yield _section("progress", "")
        yield _section("counts", html.counts(report))
        yield from self._tables(report)
        yield _section("failures", "".join(html.failures(report, self._samples.messages)))
        yield _section("settings", "".join(html.settings(report)))
        found = report_object(report, self._command, exit_code)
        yield "progress event", sse_event("progress", _progress(found, 1.0, None))
        yield "series", sse_event("charts", self._samples.columns)
        yield "end", sse_event("end", {"exit_code": exit_code, "report": found})

    def _tables(self, report: AnyReport) -> Iterator[tuple[str, bytes]]:
        if isinstance(report, StreamReport):
            yield _section("windows", "".join(html.windows(self._samples.windows)))
        else:
            yield _section("sources", "".join(html.sources(report)))
            yield _section("slowest", "".join(html.slowest(report)))

    def _messages(self, report: AnyReport) -> MessageCounts:
        """Return the failures by message, while the work goes on."""
        if not isinstance(report, StreamReport):
            return self._samples.messages
        counts = MessageCounts()  # those of a stream come in no part, but in the report
        counts.add_groups(report.first_groups)
        return counts

    def _progress_event(self, pace: Any, report: AnyReport) -> bytes:
        """Return the numbers for the script, and for programs that read the events."""
        found = report_object(report, self._command, exit_codes.SUCCESS)
        found.failures = []  # the section of failures has them
        if isinstance(report, StreamReport):
            return sse_event("progress", _progress(found, None, None))
        return sse_event("progress", _progress(found, pace.fraction, pace.seconds_left))


def _progress(report: Any, fraction: float | None, seconds_left: float | None) -> dict[str, Any]:
    return {"fraction": fraction, "seconds_left": seconds_left, "report": report}


def _section(name: str, content: str) -> tuple[str, bytes]:
    """Return a part of the page with its HTML."""
    return name, sse_event("section", {"name": name, "html": content})


def _announcement(listening: ListenSocket, access: Access) -> str:
    url = f"http://{listening.authority}/"
    if access.token is None:
        return f"Live page: {url}"
    return (
        "Live page, for each reader on the network who has this URL (it is not encrypted):\n"
        f"{url}?token={access.token}"
    )


def _running_header(report: AnyReport, command: str) -> str:
    is_stopping = report.stopped if isinstance(report, StreamReport) else report.interrupted
    text = html.title_line(command, "running", "Stopping" if is_stopping else "Running")
    text += html.started_line(report, f"running for {format_remaining(report.elapsed_s)}")
    return text + "".join(html.notes(report))


def _skeleton(command: str) -> tuple[bytes, str]:
    """Return the page without its content, and its content security policy."""
    files = html.PageFiles.read("live.js")
    more = "; connect-src 'self'; img-src 'self'"
    places = "".join(
        html.CHARTS if name == "charts" else f'<div data-part="{name}"></div>\n' for name in _PLACES
    )
    text = (
        f"<!DOCTYPE html>\n{files.head(f'asyncbatch {command}', more)}{html.SKIP_LINK}"
        f'<header data-part="header"><h1>asyncbatch {command}</h1></header>\n<main>\n'
        '<p id="connection" role="status"></p>\n'
        "<noscript><p>The live page needs JavaScript. The page of <code>--report FILE.html</code> "
        f"does not.</p></noscript>\n{places}</main>\n{files.scripts()}</body>\n</html>\n"
    )
    return text.encode(), f"{files.policy}{more}; frame-ancestors 'none'"


async def _wait_for_signal() -> None:
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            loop.add_signal_handler(number, is_over.set)
    to_stderr("The live page stays until Ctrl-C.")
    await is_over.wait()
