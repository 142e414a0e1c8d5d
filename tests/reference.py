"""The reference of options, `docs/options.md`, made of their declarations.

`make reference` writes it, and a test compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args, get_type_hints

from asyncbatch.cli.config import ShowFlags
from asyncbatch.cli.etl import run_etl
from asyncbatch.cli.flags import flags
from asyncbatch.cli.generate import EventFlags
from asyncbatch.cli.history import HistoryFlags, PastRunFlags
from asyncbatch.cli.merge_reports import MergeFlags
from asyncbatch.cli.profile import profile_files
from asyncbatch.cli.run import run_files
from asyncbatch.cli.stream import stream_events
from asyncbatch.cli.validate import validate_files
from asyncbatch.config.options.control import ConfigFlags
from asyncbatch.config.options.declare import Options
from asyncbatch.config.options.profiles import DiffFlags, InferFlags
from asyncbatch.config.options.streams import SimulatorOptions
from tests.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.flags import Flag

PATH = ROOT / "docs" / "options.md"
_HEAD = """\
# Options

`make reference` makes this page of the declarations in `asyncbatch/config/options`: do not edit it.
Each option can also be set by an environment variable: `ASYNCBATCH_RUN_BATCH_SIZE` sets
`--batch-size` of `run`. A DURATION is a number of seconds, or has a unit: `500ms`, `5s`, `1m`,
`1h`, `1d`. A SIZE is a number of bytes, or has a unit: `64K`, `10MB`, `1.5GiB`.
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
    names = ", ".join(
        f"`{name} {value}`" if value else f"`{name}`" for name in reversed(flag.names)
    )
    text = flag.help
    if "[default:" not in text and flag.default not in (None, False, True, ()):
        text += f"  [default: {flag.default}]"
    cells = names, text.replace("<", "&lt;").replace("*", "\\*")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


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


if __name__ == "__main__":
    PATH.write_text(reference())
