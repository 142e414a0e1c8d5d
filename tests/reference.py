"""The reference of options and of the kinds of failure, made of their declarations.

`make reference` writes `docs/options.md` and `docs/failures.md`, and tests compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from typer.main import get_command

from asyncbatch.cli.app import app
from asyncbatch.cli.commands.config import ShowFlags
from asyncbatch.cli.commands.etl import run_etl
from asyncbatch.cli.commands.generate import EventFlags
from asyncbatch.cli.commands.history import HistoryFlags, PastRunFlags
from asyncbatch.cli.commands.merge_reports import MergeFlags
from asyncbatch.cli.commands.profile import profile_files
from asyncbatch.cli.commands.run import run_files
from asyncbatch.cli.commands.stream import stream_events
from asyncbatch.cli.commands.validate import validate_files
from asyncbatch.cli.options.flags import flags
from asyncbatch.cli.render.kinds import KINDS
from asyncbatch.config.options.control import (
    ClusterFlags,
    ConfigFlags,
    FailureFlags,
    StopFlags,
    WorkerFlags,
)
from asyncbatch.config.options.inputs import InputOptions
from asyncbatch.config.options.profiles import DiffFlags, InferFlags, SchemaOutputFlags
from asyncbatch.config.options.streams import SimulatorOptions
from asyncbatch.core.options import Options
from tests.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.options.flags import Flag

PATH = ROOT / "docs" / "options.md"
FAILURES_PATH = ROOT / "docs" / "failures.md"
_HEAD = """\
# Options

`make reference` makes this page of the declarations in `asyncbatch/config/options`: do not edit it.
Each option can also be set by an environment variable: `ASYNCBATCH_RUN_BATCH_SIZE` sets
`--batch-size` of `run`. A DURATION is a number of seconds, or has a unit: `500ms`, `5s`, `1m`,
`1h`, `1d`. A SIZE is a number of bytes, or has a unit: `64K`, `10MB`, `1.5GiB`. K, M, G
and T, also written KiB and so on, are powers of 1,024; KB, MB, GB and TB are powers of 1,000.
"""
_FAILURES_HEAD = """\
# Kinds of failure

`make reference` makes this page of the declarations in `asyncbatch/cli/render/kinds.py`: do not
edit it. Each failure has a `kind`: in the summary, in reports (`failures[].kind`; `failure_kinds`
counts them), in dead letters, and as the rule of SARIF. The other fields of a failure are in
[The output contract](output.md#kinds-of-failure). New kinds may be added, and none is renamed.

With `--report last.json`, `jq .failure_kinds last.json` counts the failures of each kind, and
`jq '.failures[] | select(.kind == "schema")' last.json` lists those of one.

"""


# Sections that describe several commands.
_SHARED_SECTIONS = {
    "history show": ("history show|diff",),
    "history diff": ("history show|diff",),
}


def groups() -> Iterator[tuple[str, type[Options]]]:
    """Yield each command and group of options, as its function takes them."""
    functions = {
        "run": run_files, "validate": validate_files, "etl": run_etl, "stream": stream_events,
        "profile": profile_files,
    }  # fmt: skip
    for name, function in functions.items():
        for kind in get_type_hints(function).values():
            if isinstance(kind, type) and issubclass(kind, Options):
                yield name, kind
    for kind in (
        InferFlags, InputOptions, WorkerFlags, ClusterFlags, StopFlags, FailureFlags,
        SchemaOutputFlags,
    ):  # fmt: skip
        yield "schema infer", kind
    yield "schema diff", DiffFlags
    yield "generate events", EventFlags
    yield "generate events", SimulatorOptions
    yield "merge-reports", MergeFlags
    yield "history", HistoryFlags
    yield "history show|diff", PastRunFlags
    yield "config show", ShowFlags
    yield "config show", ConfigFlags


def typer_options(group: Any = None, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command and option of the tree of commands, without those for help."""
    group = group or get_command(app)
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        path = f"{above} {name}".strip()
        for one in command.params:
            if one.param_type_name == "option" and one.name not in ("help", "help_all"):
                yield path, one
        if hasattr(command, "list_commands"):
            yield from typer_options(command, path)


def _other_row(one: Any) -> str:
    """Return an option that is in no group as a row of a table."""
    choices = "|".join(getattr(one.type, "choices", ()))
    value = one.metavar or choices
    names = ", ".join(_code(f"{name} {value}" if value else name) for name in reversed(one.opts))
    text = one.help
    if isinstance(one.default, str):
        text += f"  [default: {one.default}]"
    return f"| {names} | {text} |"


def _row(flag: Flag) -> str:
    """Return an option as a row of a table."""
    choices = "|".join(get_args(flag.kind))  # of a Literal; other types have none
    value = flag.metavar or choices
    names = ", ".join(_code(f"{name} {value}" if value else name) for name in reversed(flag.names))
    text = flag.help
    if "[default:" not in text and flag.default not in (None, False, True, ()):
        text += f"  [default: {flag.default}]"
    cells = names, text.replace("<", "&lt;").replace("*", "\\*")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _name(flag: Flag) -> str:
    return flag.names[0].partition("/")[0]


def _code(text: str) -> str:
    """Return a text as code in a cell of a table, where GitHub and the site write a bar alike."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def reference() -> str:
    """Return the text of the reference."""
    commands: dict[str, dict[str, list[str]]] = {}
    for command, kind in groups():
        for flag in flags(kind):
            commands.setdefault(command, {}).setdefault(flag.panel, []).append(_row(flag))
    rows_of_flags = {
        (command, row) for command, kind in groups() for row in map(_name, flags(kind))
    }
    for command, one in typer_options():
        is_known = any(
            (section, max(one.opts, key=len)) in rows_of_flags
            for section in (command, *_SHARED_SECTIONS.get(command, ()))
        )
        if not is_known:
            panel = getattr(one, "rich_help_panel", None) or "Other"
            commands.setdefault(command, {}).setdefault(panel, []).append(_other_row(one))
    text = _HEAD
    for command, panels in commands.items():
        text += f"\n## `asyncbatch {command}`\n"
        for panel, rows in panels.items():
            text += f"\n### {panel}\n\n| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
    return text


def failures() -> str:
    """Return the text of the page of the kinds of failure."""
    index = "| kind | fails | meaning |\n|---|---|---|\n" + "".join(
        f"| [`{name}`](#{name}) | {kind.subject} | {kind.meaning} |\n"
        for name, kind in KINDS.items()
    )
    return (
        _FAILURES_HEAD
        + index
        + "".join(
            f"\n## `{name}`\n\n{kind.meaning} {kind.explanation}\n\n**Remedy.** {kind.remedy}\n"
            for name, kind in KINDS.items()
        )
    )


if __name__ == "__main__":
    PATH.write_text(reference())
    FAILURES_PATH.write_text(failures())
