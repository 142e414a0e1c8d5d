"""The reference of options and of the kinds of failure, made of their declarations.

`make reference` writes `docs/options.md` and `docs/failures.md`, and tests compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args, get_type_hints

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
from asyncbatch.config.options.control import ConfigFlags
from asyncbatch.config.options.profiles import DiffFlags, InferFlags
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
`1h`, `1d`. A SIZE is a number of bytes, or has a unit: `64K`, `10MB`, `1.5GiB`.
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
    yield "schema infer", InferFlags
    yield "schema diff", DiffFlags
    yield "generate events", EventFlags
    yield "generate events", SimulatorOptions
    yield "merge-reports", MergeFlags
    yield "history", HistoryFlags
    yield "history show|diff", PastRunFlags
    yield "config show", ShowFlags
    yield "config show", ConfigFlags


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


def _code(text: str) -> str:
    """Return a text as code in a cell of a table, where GitHub and the site write a bar alike."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def reference() -> str:
    """Return the text of the reference."""
    commands: dict[str, dict[str, list[str]]] = {}
    for command, kind in groups():
        for flag in flags(kind):
            commands.setdefault(command, {}).setdefault(flag.panel, []).append(_row(flag))
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
