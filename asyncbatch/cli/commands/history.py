"""The command `asyncbatch history`: list, show and compare past runs."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer
from msgspec.structs import asdict

from asyncbatch.cli.command import CommandGroup, SectionedCommand, print_note
from asyncbatch.cli.options.parameters import with_options
from asyncbatch.cli.terminal import is_terminal
from asyncbatch.core.options import Lines, Options, option
from asyncbatch.core.units import format_count, format_seconds, printable
from asyncbatch.errors import UsageError
from asyncbatch.state.history import FailedFile, History, PastRun, history_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EPILOG = """\
\b
Examples:
  asyncbatch history -n 5
  asyncbatch history show last
  asyncbatch history diff 41 42
  asyncbatch history --failed -o json
"""

history: typer.Typer = typer.Typer(
    name="history",
    epilog=EPILOG,
    cls=CommandGroup,
    add_completion=False,
    rich_markup_mode=None,
    help="List past runs, and the files that began or ceased to fail.\n\n"
    "A run with a ledger or a checkpoint, or with --history, leaves a line when it ends.",
)

OutputForm = Annotated[
    Literal["text", "json"], option("Print text, or one JSON object.", short="-o")
]
LAST = "last"  # in place of the number of a run: the latest one
_COMPARED = ("elapsed_s", "files", "records", "written", "failures")
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 8  # runs in a sparkline


class HistoryFlags(Options, frozen=True, kw_only=True):
    """The runs that `asyncbatch history` lists."""

    panel: ClassVar[str] = "Output"

    last: Annotated[
        Lines, option("List the latest N runs, the latest one last.", short="-n", metavar="N|all")
    ] = 20
    failed: Annotated[bool, option("List only runs whose exit status is not 0.")] = False
    output: OutputForm = "text"


class PastRunFlags(Options, frozen=True, kw_only=True):
    """The output of `history show` and `history diff`."""

    panel: ClassVar[str] = "Output"

    output: OutputForm = "text"


@history.callback(invoke_without_command=True)
@with_options
def list_runs(context: typer.Context, *, flags: HistoryFlags) -> None:
    """List past runs, the latest one last."""
    if context.invoked_subcommand is not None:
        return
    found = list(_with_earlier(_runs(math.inf)))
    if flags.failed:
        found = [(run, earlier) for run, earlier in found if run.exit_code]
    found = found[len(found) - int(min(flags.last, len(found))) :]
    if flags.output == "json":
        objects = [_object(run, earlier[-1] if earlier else None) for run, earlier in found]
        _print_json({"runs": objects})
        return
    lines = [line for run, earlier in found for line in _run_lines(run, earlier)]
    if is_terminal(sys.stdout.fileno()):
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    print_note("\n".join(lines or ["no run found"]))


@history.command(cls=SectionedCommand)
@with_options
def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The number of a run, its id, or 'last'.")
    ] = LAST,
    *,
    flags: PastRunFlags,
) -> None:
    """Show a run, the change against the run before, and the files that failed."""
    found = _find(run)
    before = next(iter(_runs(1, job=found.job, until=found.run - 1)), None)
    failed = _failed_files(found)
    if flags.output == "json":
        files = [asdict(one) for one in failed]
        _print_json(
            {
                **_object(found, before),
                "failed_files": files,
                "failures_omitted": _omitted(found, failed),
            }
        )
        return
    print_note("\n".join(_detail_lines(found, before, failed)))


@history.command(cls=SectionedCommand)
@with_options
def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="The number of the earlier run, or its id.")
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="The number of the later run, its id, or 'last'.  "
            "[default: the latest of A's job]",
        ),
    ] = None,
    *,
    flags: PastRunFlags,
) -> None:
    """Show the files that began to fail, and those that ceased to, from run A to run B."""
    earlier = _find(a)
    later = _latest_of_job(earlier) if b is None else _find(b)
    before, after = _failed_files(earlier), _failed_files(later)
    kinds_before, kinds_after = _kinds_by_file(before), _kinds_by_file(after)
    began = {file: kinds for file, kinds in kinds_after.items() if file not in kinds_before}
    ceased = {file: kinds for file, kinds in kinds_before.items() if file not in kinds_after}
    still = [file for file in kinds_after if file in kinds_before]
    doubts = list(_doubts((earlier, before), (later, after)))
    if flags.output == "json":
        _print_json(
            {
                "a": _object(earlier),
                "b": _object(later, earlier),
                "began": [{"file": file, "kinds": kinds} for file, kinds in began.items()],
                "ceased": [{"file": file, "kinds": kinds} for file, kinds in ceased.items()],
                "still": still,
                "notes": doubts,
            }
        )
        return
    lines = [_title(earlier), _title(later)]
    for title, files in (("began to fail", began), ("ceased to fail", ceased)):
        lines.append(f"{title} ({len(files):,})")
        lines += (f"  {printable(file)}: {', '.join(kinds)}" for file, kinds in files.items())
    lines.append(f"still failing ({len(still):,})")
    lines += (f"Note: {note}" for note in doubts)
    print_note("\n".join(lines))


def _runs(limit: float, *, job: str | None = None, until: int | None = None) -> list[PastRun]:
    """Return the latest runs, the latest one last. Raises BadParameter."""
    try:
        return History(history_path()).runs(limit, job=job, until=until)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def _failed_files(run: PastRun) -> list[FailedFile]:
    try:
        return History(history_path()).failed_files(run.run)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def _find(text: str) -> PastRun:
    """Return the run with a number or an id. Raises BadParameter."""
    if text == LAST:
        for run in _runs(1):
            return run
        raise typer.BadParameter("the history has no run")
    for run in _runs(math.inf):
        if text in (str(run.run), run.run_id):
            return run
    advice = (
        "`asyncbatch history` lists the numbers of the runs, and logs and reports have their ids"
    )
    raise typer.BadParameter(f"the history has no run {text!r} ({advice})")


def _latest_of_job(run: PastRun) -> PastRun:
    """Return the latest run of the job of a run. Raises BadParameter if it is the same."""
    [latest] = _runs(1, job=run.job)
    if latest.run == run.run:
        raise typer.BadParameter(f"run {run.run} is the latest of its job: name another run, too")
    return latest


def _with_earlier(runs: Sequence[PastRun]) -> Iterator[tuple[PastRun, list[PastRun]]]:
    """Yield each run, and the runs before it of the same job."""
    by_job: dict[str, list[PastRun]] = defaultdict(list)
    for run in runs:
        yield run, by_job[run.job][-_MOST_BARS:]
        by_job[run.job].append(run)


def _change(run: PastRun, before: PastRun | None) -> dict[str, Any] | None:
    """Return the difference of each count and of the time, or None for the first run of a job."""
    if before is None:
        return None
    pairs = {name: (getattr(run, name), getattr(before, name)) for name in _COMPARED}
    return {
        name: round(now - then, 3)
        for name, (now, then) in pairs.items()
        if now is not None and then is not None
    }


def _object(run: PastRun, before: PastRun | None = None) -> dict[str, Any]:
    change = _change(run, before)
    compared = None if before is None else {"run": before.run, **(change or {})}
    return {**asdict(run), "change": compared}


def _print_json(value: dict[str, Any]) -> None:
    print_note(json.dumps(value, indent=2))


def _when(run: PastRun) -> str:
    """Return the time at which a run began, in the zone of this machine."""
    try:
        return f"{datetime.fromisoformat(run.started_at).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return run.started_at


def _title(run: PastRun) -> str:
    return f"{run.run:>5}  {_when(run)}  {run.command} {printable(run.name)}"


def _run_lines(run: PastRun, earlier: Sequence[PastRun]) -> Iterator[str]:
    """Yield the two lines about a run in the list."""
    bars = _sparkline([one.elapsed_s for one in (*earlier, run)][-_MOST_BARS:])
    yield f"{run.run:>5}  {_when(run)}  {bars:>{_MOST_BARS}}  {run.command} {printable(run.name)}"
    counts = ", ".join(_counts(run, earlier[-1] if earlier else None))
    yield f"       {_outcome(run)} in {format_seconds(run.elapsed_s)}: {counts}"


def _outcome(run: PastRun) -> str:
    return f"{run.status} ({run.exit_code})"


def _counts(run: PastRun, before: PastRun | None) -> Iterator[str]:
    """Yield the counts of a run, each with its change."""
    change = _change(run, before) or {}
    nouns = {"files": "file", "records": "record", "failures": "failure"}
    if run.command == "stream":
        nouns["records"] = "event"
    for name, noun in nouns.items():
        if (count := getattr(run, name)) is not None:
            moved = f" ({change[name]:+,})" if change.get(name) else ""
            yield format_count(count, noun) + moved


def _sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, relative to the largest one."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    top = len(_BARS) - 1
    return "".join(
        _BARS[min(top, max(0, math.ceil(value / most * len(_BARS)) - 1))] for value in values
    )


def _detail_lines(
    run: PastRun, before: PastRun | None, failed: Sequence[FailedFile]
) -> Iterator[str]:
    """Yield the lines about one run."""
    yield f"run {run.run}: {run.command} {printable(run.name)}"
    yield f"  started   {_when(run)}"
    yield f"  outcome   {run.status} (exit status {run.exit_code})"
    if run.run_id:
        yield f"  run id    {printable(run.run_id)}, as in its log and reports"
    if run.error:
        yield f"  error     {printable(run.error)}"
    yield f"  duration  {format_seconds(run.elapsed_s)}"
    if run.files is not None:
        words = ("succeeded", "partial", "failed", "skipped")
        parts = [f"{getattr(run, word):,} {word}" for word in words if getattr(run, word)]
        yield f"  files     {run.files:,}" + (f": {', '.join(parts)}" if parts else "")
    noun, output = ("events", "windows") if run.command == "stream" else ("records", "written")
    yield f"  {noun:8}  {run.records:,} read, {run.rejected:,} rejected"
    yield f"  {output:8}  {run.written:,}"
    if (change := _change(run, before)) is not None and before is not None:
        counts = [f"{value:+,} {name}" for name, value in change.items()
                  if name != "elapsed_s" and value]  # fmt: skip
        moved = ", ".join([f"{change['elapsed_s']:+,.3f} s", *counts])
        yield f"  change    {moved} since run {before.run}"
    yield f"  failures  {run.failures:,}"
    for one in failed:
        times = f" ({one.count:,} times)" if one.count > 1 else ""
        yield f"    {printable(one.file)}: {one.kind}{times}"
    if omitted := _omitted(run, failed):
        yield f"    ... and {format_count(omitted, 'more failure')} that the history does not keep"


def _omitted(run: PastRun, failed: Sequence[FailedFile]) -> int:
    """Return the number of failures whose files are not kept."""
    return max(0, run.failures - sum(one.count for one in failed))


def _kinds_by_file(failed: Sequence[FailedFile]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for one in failed:
        kinds.setdefault(one.file, []).append(one.kind)
    return kinds


def _doubts(
    earlier: tuple[PastRun, list[FailedFile]], later: tuple[PastRun, list[FailedFile]]
) -> Iterator[str]:
    """Yield the reasons why a comparison of two runs may mislead."""
    if earlier[0].job != later[0].job:
        yield "these are runs of different jobs"
    for run, failed in (earlier, later):
        if omitted := _omitted(run, failed):
            lost = format_count(omitted, "failure")
            yield f"the history does not have the files of {lost} of run {run.run}"
        if run.status in ("interrupted", "stopped") or run.error:
            yield f"run {run.run} ended early: files that it did not read did not fail in it"
        if run.skipped:
            skipped = format_count(run.skipped, "file")
            yield f"run {run.run} skipped {skipped} that were done: these did not fail in it"
