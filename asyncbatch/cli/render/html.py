"""The HTML report: one page without references, which opens offline."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from msgspec import UNSET

from asyncbatch._version import __version__
from asyncbatch.cli.display.text import SummaryOptions, status_line
from asyncbatch.cli.options.job_settings import AUTOMATIC, NO_WORKERS
from asyncbatch.cli.render.html_parts import (
    Cell,
    cards,
    definitions,
    failure_details,
    failures_note,
    section,
    shown,
    table,
)
from asyncbatch.cli.render.json import report_object
from asyncbatch.cli.render.kinds import KINDS
from asyncbatch.cli.render.samples import MessageCounts, Samples, WindowSample
from asyncbatch.cli.render.schema import RunFields
from asyncbatch.core.report import MAX_LISTED_FAILURES, Report, StreamReport
from asyncbatch.core.system import usable_cpus
from asyncbatch.core.units import (
    format_count,
    format_elapsed,
    format_location,
    format_rate,
    format_seconds,
    format_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.records import Failure
    from asyncbatch.core.report import AnyReport

HTML_BEGINNING = b"<!DOCTYPE html>\n<!-- A report of asyncbatch "

# Signs of JSON texts that are written as escapes: those that could end the script element or begin
# markup, ends of lines of JavaScript, and those that control a terminal or the direction of text.
_UNSAFE = re.compile("[<>&\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


class Html:
    """A renderer of one HTML page with charts.

    Without JavaScript the page has all but the charts, the filter and the order by columns. Text of
    the data is escaped, and the page forbids all scripts but its own, and all requests.
    """

    def __init__(self) -> None:
        self._samples = Samples()

    def update(self, report: AnyReport) -> None:
        """Take a point of the charts over time."""
        self._samples.update(report)

    def part(self, found: Outcomes) -> bytes:
        """Take some of the finished files or windows for charts, and return nothing."""
        self._samples.part(found)
        return b""

    def finish(self, report: AnyReport, command: str, exit_code: int) -> Iterator[bytes]:
        """Yield the page."""
        self._samples.end(report)
        page = PageFiles.read("report.js")
        yield HTML_BEGINNING + f"{__version__} -->\n".encode()
        yield page.head(f"asyncbatch {command}: {report.status}").encode()
        yield f"{SKIP_LINK}<header>\n{header(report, command, exit_code)}</header>\n".encode()
        yield b"<main>\n"
        for text in self._sections(report):
            yield text.encode()
        yield b"</main>\n"
        yield b'<script type="application/json" id="data">'
        yield self._data(report, command, exit_code)
        yield b"</script>\n"
        yield page.scripts().encode()
        yield b"</body>\n</html>\n"

    def _sections(self, report: AnyReport) -> Iterator[str]:
        yield counts(report)
        if isinstance(report, Report) and report.profile is not None:
            from asyncbatch.cli.render.html_profile import profile_sections

            yield from profile_sections(report.profile)
        yield CHARTS
        if isinstance(report, StreamReport):
            yield from windows(self._samples.windows)
        else:
            yield from sources(report)
            yield from slowest(report)
        yield from failures(report, self._samples.messages)
        yield from settings(report)

    def _data(self, report: AnyReport, command: str, exit_code: int) -> bytes:
        """Return the data of the charts, and the report object, as JSON for a script element."""
        fields = report_object(report, command, exit_code)
        if isinstance(fields, RunFields):
            fields.profile = UNSET  # its tables are in the page
        data: dict[str, Any] = {"report": fields, **self._samples.columns}
        text = msgspec.json.encode(data).decode()
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


class PageFiles(NamedTuple):
    """The styles and scripts of a page. The library of charts is uPlot, see page/README.md."""

    style: str
    licence: str
    charts: str
    script: str

    @classmethod
    def read(cls, script: str) -> PageFiles:
        """Read them from the package. `script` is the file that makes the page work."""
        page = files("asyncbatch.cli.render") / "page"

        def text(name: str) -> str:
            return (page / name).read_text(encoding="utf-8")

        return cls(
            style=text("uPlot.min.css") + text("report.css"),
            licence=text("uPlot-LICENSE.txt"),
            charts=text("uPlot.iife.min.js"),
            script=text("components.js") + text(script),
        )

    @property
    def policy(self) -> str:
        """The content security policy: our scripts and styles, and nothing else."""
        scripts = f"{_source(self._charts_with_licence)} {_source(self.script)}"
        return (
            f"default-src 'none'; script-src {scripts}; style-src {_source(self.style)}; "
            "base-uri 'none'; form-action 'none'"
        )

    def head(self, title: str, more_policy: str = "") -> str:
        """Return the page from its beginning to its first visible element."""
        policy = self.policy + more_policy
        return (
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{escape(title)}</title>\n<style>{self.style}</style>\n</head>\n<body>\n"
        )

    def scripts(self) -> str:
        """Return the scripts at the end of the page."""
        return f"<script>{self._charts_with_licence}</script>\n<script>{self.script}</script>\n"

    @property
    def _charts_with_licence(self) -> str:
        return f"/*!\n{self.licence}\n*/\n{self.charts}"


def _source(text: str) -> str:
    """Return the name of an inline script or style in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


SKIP_LINK = '<a class="skip" href="#failures">Skip to the failures</a>\n'
CHARTS = """\
<section id="charts" aria-labelledby="charts-title">
<h2 id="charts-title">Charts</h2>
<noscript><p>Charts need JavaScript; counts and failures are here without it.</p></noscript>
<div class="charts" id="chart-list"></div>
</section>
"""


def header(report: AnyReport, command: str, exit_code: int) -> str:
    """Return the head of a page: the status with its reason, the times, and the notes."""
    word, _, rest = status_line(report, SummaryOptions(exit_code)).partition(" (")
    reason = rest.replace(")", "", 1)  # exit status 1: 3 files failed
    text = title_line(command, report.status, word)
    text += f"<p>{escape(reason[:1].upper() + reason[1:])}.</p>\n"
    text += started_line(report, f"took {format_seconds(report.elapsed_s)}")
    return text + "".join(notes(report))


def title_line(command: str, status: str, word: str) -> str:
    """Return the heading of a page: the command, and its status in a word."""
    return (
        f"<h1><span>asyncbatch {escape(command)}</span> "
        f'<strong class="status {status}">{escape(word)}</strong></h1>\n'
    )


def started_line(report: AnyReport, duration: str) -> str:
    """Return the paragraph about the time of a run."""
    started = report.started_at
    return (
        f'<p>Started <time datetime="{started.isoformat()}">'
        f"{started.strftime('%Y-%m-%d %H:%M:%S')} UTC</time>, {duration}.</p>\n"
    )


def notes(report: AnyReport) -> Iterator[str]:
    """Yield the remarks for the user."""
    for note in [*report.notes, getattr(report, "discarded", None)]:
        if note:
            yield f'<p class="note">{shown(note)}</p>\n'


def counts(report: AnyReport) -> str:
    """Return the section of counts."""
    rows = _stream_counts(report) if isinstance(report, StreamReport) else _run_counts(report)
    return section("counts", "Counts", cards(rows))


_Count = tuple[str, str, str]  # the name, the value, and a remark about it


def _run_counts(report: Report) -> Iterator[_Count]:
    tally, seconds = report.tally, report.elapsed_s or 1e-9
    yield (
        f"{report.input_noun}s",
        f"{tally.files:,}",
        format_rate(tally.files / seconds, report.input_noun),
    )
    yield "succeeded", f"{tally.succeeded:,}", ""
    if tally.partial:
        yield "partial", f"{tally.partial:,}", "some of their records were rejected"
    yield "failed", f"{tally.failed:,}", ""
    if tally.skipped:
        yield "skipped", f"{tally.skipped:,}", ""
    yield "records", f"{tally.read:,}", format_rate(tally.read / seconds, "record")
    yield "rejected records", f"{tally.rejected:,}", ""
    if tally.dropped:
        yield "dropped records", f"{tally.dropped:,}", ""
    if report.target or tally.written:
        refused = report.sink.rejected if report.sink else 0
        yield "rows written", f"{tally.written:,}", f"{refused:,} refused" if refused else ""
    if tally.retries:
        yield "retries", f"{tally.retries:,}", "after temporary failures"
    yield "size", format_size(tally.bytes), f"{format_size(tally.bytes / seconds)}/s"
    yield "peak memory", format_size(report.peak_memory_bytes), "of all processes"


def _stream_counts(report: StreamReport) -> Iterator[_Count]:
    tally, seconds = report.tally, report.elapsed_s or 1e-9
    earlier = tally.read - report.read
    yield (
        "events",
        f"{tally.read:,}",
        f"{earlier:,} in earlier runs"
        if earlier > 0
        else (format_rate(report.read / seconds, "event")),
    )
    yield "in windows", f"{tally.events:,}", ""
    yield (
        "late",
        f"{tally.late:,}",
        (f"{tally.late_in_part:,} more for some of their windows" if tally.late_in_part else ""),
    )
    yield "rejected", f"{tally.rejected:,}", ""
    if tally.dropped:
        yield "dropped", f"{tally.dropped:,}", ""
    if tally.lost:
        yield "read errors", f"{tally.lost:,}", "a source could not be read"
    if report.left:
        yield "left", f"{report.left:,}", "arrived before the stop, not processed"
    yield (
        "windows",
        f"{tally.windows:,}",
        (f"{tally.refused:,} refused by the target" if tally.refused else "one for each key"),
    )
    if tally.retries:
        yield "retries", f"{tally.retries:,}", "after temporary failures"
    if report.lag is not None:
        yield "lag", format_seconds(report.lag / 1e6), "of the watermark behind the clock"
    yield "size", format_size(report.bytes), f"{format_size(report.bytes / seconds)}/s"
    yield "peak memory", format_size(report.peak_memory_bytes), "of all processes"


def sources(report: Report) -> Iterator[str]:
    """Yield the sections of the sources and the sink, if the report has these."""
    if report.sources:
        heads = [
            ".source", ".type", ".state", "#inputs", "#failed", "#skipped", "#pages", "#requests",
            "#records", "#rejected", "#retries",
        ]  # fmt: skip
        rows = [
            [
                source.name, source.type, source.state, source.tally.files, source.tally.failed,
                source.tally.skipped, source.traffic and source.traffic.pages,
                source.traffic and source.traffic.requests, source.tally.read,
                source.tally.rejected, source.tally.retries,
            ]
            for source in report.sources
        ]  # fmt: skip
        yield section("sources", "Sources", table("The counts of each source", heads, rows))
    if (sink := report.sink) is not None:
        facts = {
            "Target": sink.to,
            "Table": sink.table or "",
            "Mode": sink.mode or "",
            "Key": ", ".join(sink.key),
            "Rows written": f"{report.tally.written:,}",
            "Rows refused": f"{sink.rejected:,}",
        }
        yield section("sink", "Sink", definitions(facts))


def slowest(report: Report) -> Iterator[str]:
    """Yield the section of the slowest inputs, if there are any."""
    if report.slowest:
        rows = [
            [slow.file, Cell(format_elapsed(slow.elapsed_ms), slow.elapsed_ms)]
            for slow in report.slowest
        ]
        name = f"{report.input_noun}s"
        text = table("By the time that each took", [report.input_noun, "#duration"], rows)
        yield section("slowest", f"Slowest {name}", text)


def windows(sample: WindowSample) -> Iterator[str]:
    """Yield the section of the last windows, if there are any."""
    if not sample.recent:
        return
    from asyncbatch.sinks.windows import window_lines

    rows: list[list[Any]] = []
    for schema, window in sample.recent:
        line = msgspec.json.decode(window_lines(schema, [window]))
        ends = line["window_end"] + (" (partial)" if line.get("partial") else "")
        key, results = (_pairs(line[name]) for name in ("key", "aggregates"))
        rows.append([line["window_start"], key, window.totals.count, results, ends])
    heads = [".start", "key", "#events", "aggregates", ".end"]
    caption = f"The last {format_count(len(rows), 'window')}, the newest first"
    yield section("windows", "Windows", table(caption, heads, rows))


def _pairs(values: dict[str, Any]) -> str:
    """Return the values of an object as one short text."""
    texts = (
        f"{name}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for name, value in values.items()
    )
    return ", ".join(texts)[:_MAX_CELL_CHARACTERS]


_MAX_CELL_CHARACTERS = 300


def failures(
    report: AnyReport, messages: MessageCounts, latest: Sequence[Failure] | None = None
) -> Iterator[str]:
    """Yield the section of failures: by kind, by message, and each one.

    While the work goes on, the `latest` ones are listed in place of the first.
    """
    if not report.failure_count:
        so_far = "" if latest is None else " so far"
        yield section("failures", "Failures", f"<p>No input and no record failed{so_far}.</p>\n")
        return
    frequent = messages.frequent
    if latest is None:
        listed, caption = report.failures[:MAX_LISTED_FAILURES], "Each failure"
        grouped = sum(one.count for one in frequent)
        note = failures_note(report.failure_count, len(listed), grouped)
    else:
        frequent = frequent[:_MAX_LIVE_MESSAGES]
        listed, caption = [*latest], "The latest failures, the newest first"
        note = f"<p>{format_count(report.failure_count, 'failure')} so far.</p>\n"
    kinds = [
        [kind, count, KINDS[cast("Any", kind)].meaning if kind in KINDS else ""]
        for kind, count in sorted(report.kinds.items())
    ]
    groups = [
        [one.first.kind, one.first.message, one.count, one.files, format_location(one.first)]
        for one in frequent
    ]
    noun = "file" if isinstance(report, StreamReport) else report.input_noun
    parts = [
        note,
        _FILTER.replace(
            "KINDS", "".join(f"<option>{shown(str(kind))}</option>" for kind, *_ in kinds)
        ),
        table("Failures by kind", [".kind", "#failures", "meaning"], kinds),
        table(
            "Failures by message",
            [".kind", "message", "#failures", f"#{noun}s", "first place"],
            groups,
            name="messages",
            key="kind",
        ),
        table(
            caption,
            ["file", "message", ".kind", "#line", "#column", "#record"],
            [
                [one.file, failure_details(one), one.kind, one.line, one.column, one.record]
                for one in listed
            ],
            name="each-failure",
            key="kind",
        ),
    ]
    yield section("failures", "Failures", "".join(parts))


_MAX_LIVE_MESSAGES = 50


# The script shows the form.
_FILTER = """\
<form id="filter" role="search" hidden>
<div><label for="filter-text">Text in file, message or place</label>
<input id="filter-text" type="search" autocomplete="off" spellcheck="false"></div>
<div><label for="filter-kind">Kind</label>
<select id="filter-kind"><option value="">all kinds</option>KINDS</select></div>
<button type="reset">Show all</button>
<p role="status" id="filter-status"></p>
</form>
"""


def settings(report: AnyReport) -> Iterator[str]:
    """Yield the sections of the settings and of the versions."""
    versions = {
        "asyncbatch": __version__,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Usable CPUs": str(usable_cpus()),
    }
    if report.settings:
        settings = {name.capitalize(): value for name, value in report.settings.items()}
        if report.workers is not None and settings.get("Workers") == AUTOMATIC:
            settings["Workers"] = f"{report.workers or NO_WORKERS} ({AUTOMATIC})"
        yield section("settings", "Settings", definitions(settings))
    yield section("versions", "Versions", definitions(versions))
