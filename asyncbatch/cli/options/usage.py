"""Usage errors that tell the next step: names of other tools, and files given twice."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.exceptions import TyperException

from asyncbatch.cli import exit_codes
from asyncbatch.core.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The names that other tools have for an option (GNU parallel, xargs, jq, rsync, pytest, dlt).
_OTHER_NAMES = {
    "--aggregate": "--agg",
    "--cwd": "--root",
    "--dest": "--to",
    "--destination": "--to",
    "--errors": "--dead-letter",
    "--filter": "--jq",
    "--glob": "--pattern",
    "--group-by": "--by",
    "--halt": "--fail-fast",
    "--ignore": "--exclude",
    "--include": "--pattern",
    "--incremental": "--resume",
    "--jobs": "--workers",
    "--json": "--output",
    "--keep-going": "--max-failures",
    "--max-errors": "--max-failures",
    "--max-procs": "--workers",
    "--maxfail": "--max-failures",
    "--memory": "--max-memory",
    "--out": "--to",
    "--parallel": "--workers",
    "--primary-key": "--key",
    "--processes": "--workers",
    "--retry": "--retries",
    "--silent": "--quiet",
    "--target": "--to",
    "--threads": "--workers",
    "--unique": "--dedupe",
    "--where": "--jq",
    "--write": "--to",
    "-i": "--pattern",
    "-n": "--limit",
    "-x": "--fail-fast",
}
_QUOTED = re.compile("'([^']*)'")
_NO_NUMBER = re.compile(r"('[^']*') is not a valid (int|float)(?: range)?")
_TOO_SMALL = re.compile(r"(-?[0-9]+) is not in the range x>=([0-9]+)")
_FILE_METAVARS = frozenset({"FILE", "[FILE]", "TARGET"})


class NotBegunError(typer.Exit):
    """The end of a command that cannot begin, for a reason that is printed already."""

    def __init__(self, reason: str) -> None:
        super().__init__(exit_codes.USAGE)
        self.reason = reason


def usage_message(error: TyperException) -> str:
    """Return the message of a mistake, with the name of the option if it is about one value."""
    return error.format_message().removeprefix("Invalid value: ")


def unknown_variables(prefix: str, parameters: Sequence[Any], others: Sequence[str]) -> list[str]:
    """Return a warning for each variable with `prefix` that sets no option.

    `others` are further options with a variable.
    """
    import difflib

    known = {one.envvar for one in parameters if getattr(one, "envvar", None)}
    known |= {prefix + name.removeprefix("--").replace("-", "_").upper() for name in others}
    warnings = []
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            hint = f": is {near[0]} meant?" if near else ""
            warnings.append(f"the variable {printable(name)} sets no option{hint}")
    return warnings


@contextmanager
def suggested_names(parameters: Sequence[Any]) -> Iterator[None]:
    """Suggest our name for an option of other tools, in place of one that is spelled alike."""
    try:
        yield
    except TyperException as error:
        _explain_output_file(error)
        _explain_number(error)
        wanted = _OTHER_NAMES.get(getattr(error, "option_name", ""))
        if wanted is not None and any(wanted in one.opts for one in parameters):
            error.possibilities = [wanted]  # type: ignore[attr-defined]  # a NoSuchOption
        raise


def _explain_output_file(error: TyperException) -> None:
    """Add the right options to the error of `-o FILE`. Other tools name a file by it."""
    if getattr(getattr(error, "param", None), "name", None) != "output":
        return
    value = _QUOTED.search(error.message)
    if value is not None and ("." in value[1] or "/" in value[1]):
        error.message += f" (--to {value[1]} writes the records, --report FILE what became of them)"


def _explain_number(error: TyperException) -> None:
    """Say in words that a number is none, or too small."""
    message = getattr(error, "message", "")
    message = _NO_NUMBER.sub(_name_number, message)
    message = message.replace(". Recognized values: , ", ": write one of ")  # "" stands for false
    error.message = _TOO_SMALL.sub(r"is \1, but must be at least \2", message)


def _name_number(found: re.Match[str]) -> str:
    return f"{found[1]} is not a {'number' if found[2] == 'float' else 'whole number'}"


def refuse_second_file(parameters: Sequence[Any], arguments: Sequence[str]) -> None:
    """Raise BadParameter if an option that names one file is given twice.

    The last would win, and the first would stay unwritten. Other options may be repeated: an alias
    of a shell sets one, and the user another.
    """
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for one in parameters:
        if one.param_type_name != "option" or one.multiple or one.metavar not in _FILE_METAVARS:
            continue
        for name in one.opts:
            count = sum(word == name or word.startswith(f"{name}=") for word in words)
            if count > 1:
                raise typer.BadParameter(f"{name} is given {count} times, and names one file")
