"""The command `asyncbatch merge-reports`: merge the reports of several runs."""

import os
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from asyncbatch.cli import exit_codes
from asyncbatch.config.options.control import OutputFlags, Quiet, ShowFailures
from asyncbatch.core.options import Options, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cli.render.schema import AnyFields
    from asyncbatch.cli.report_files import ReportFile

EPILOG = """\
\b
Examples:
  asyncbatch run data/ --shard 1/3 --report shard-1.json  # each machine
  asyncbatch merge-reports shard-*.json --report all.md

Exit status: the highest of all runs, so that one failed run fails the merged report; 2 wrong
usage, or a file that is not a report.
"""

Reports = Annotated[
    list[str],
    typer.Argument(
        metavar="REPORT...", help="Reports written by --report FILE.json or --output json."
    ),
]


class MergeFlags(Options, frozen=True, kw_only=True):
    """The output of merged reports."""

    panel: ClassVar[str] = "Output"

    show_failures: ShowFailures = 20
    output: Annotated[
        Literal["text", "json", "github", "sarif", "gitlab"],
        option(
            "Print a summary (text), one object (json), GitHub annotations, SARIF, or GitLab's "
            "code quality report.",
            short="-o",
            main=True,
        ),
    ] = "text"
    report: Annotated[
        tuple[str, ...],
        option(
            "Also write a report, by the ending of FILE: .html, .json, .md, .prom (metrics), "
            ".sarif, .gitlab.json (code quality).",
            metavar="FILE",
            main=True,
        ),
    ] = ()
    quiet: Quiet = False


def merge_reports(
    reports: Reports,
    *,
    options: MergeFlags,
) -> None:
    """Merge the reports of several runs, or of shards.

    Counts are added. The time runs from the earliest start to the latest end. The memory is the
    highest peak of any run.
    """
    from asyncbatch.cli.terminal import to_stderr
    from asyncbatch.errors import (
        SinkError,
        UsageError,
        error_reason,
    )

    try:
        code = _merge(reports, options)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    except BrokenPipeError:  # the rest of the buffer cannot be written either
        os._exit(exit_codes.CLOSED_OUTPUT)
    except (SinkError, OSError) as error:
        to_stderr(f"Error: cannot continue: {error_reason(error)}")
        code = exit_codes.FAILURES
    raise typer.Exit(code)


def _merge(paths: "Sequence[str]", options: MergeFlags) -> int:
    """Merge the reports, print the result and return the exit code.

    Raises UsageError, SinkError, OSError.
    """
    import asyncio

    from asyncbatch.cli.output import Output
    from asyncbatch.cli.render.json import merge

    found = _read_reports(paths)
    files = _report_files(options.report, paths)
    merged, command = merge(found), found[0].command
    code = exit_codes.of_merged(one.exit_code for one in found)

    async def conclude() -> None:
        for file in files:
            await file.finish(merged, command, code)
        shown = Output(
            OutputFlags(
                output=options.output,
                quiet=options.quiet,
                show_failures=options.show_failures,
                progress=False,
            )
        )
        await shown.finish(merged, None, command, code)

    asyncio.run(conclude())
    return code


def _read_reports(paths: "Sequence[str]") -> "list[AnyFields]":
    """Read the reports. Raises UsageError with the file and the reason."""
    from asyncbatch.cli.render.json import read_report
    from asyncbatch.core.units import printable
    from asyncbatch.errors import UsageError

    seen: dict[tuple[int, int], str] = {}
    found: list[AnyFields] = []
    for path in paths:
        name = printable(path)
        try:
            with open(path, "rb") as stream:
                status = os.fstat(stream.fileno())
                data = stream.read()
            one = read_report(data)
        except OSError as error:
            raise UsageError(f"{name}: {error.strerror or error}") from None
        except UsageError as error:
            raise UsageError(f"{name} {error}") from None
        if other := seen.get((status.st_dev, status.st_ino)):
            raise UsageError(f"{name} is the same file as {other}: it would be counted twice")
        seen[status.st_dev, status.st_ino] = name
        if found and one.command != found[0].command:
            raise UsageError(
                f"{name} is a report of `{printable(one.command)}`, the previous one of "
                f"`{printable(found[-1].command)}`: reports of different commands cannot be merged"
            )
        found.append(one)
    return found


def _report_files(paths: "Sequence[str]", inputs: "Sequence[str]") -> "list[ReportFile]":
    """Open the report files to write. Raises UsageError."""
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.errors import UsageError

    for path in paths:
        if os.path.splitext(path)[1] in (".jsonl", ".xml"):
            raise UsageError(
                f"--report {path}: this format lists each file, which merged reports do not know: "
                "write a .html, .json, .md, .prom, .sarif or .gitlab.json file"
            )
        if any(os.path.realpath(path) == os.path.realpath(one) for one in inputs):
            raise UsageError(f"--report {path} is one of the reports to merge: name another file")
    return [ReportFile(path) for path in paths]
