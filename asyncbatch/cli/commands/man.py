"""The command `asyncbatch man`: print the manual page, made of the help of all commands."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from asyncbatch._version import __version__

EPILOG = """\
\b
Examples:
  asyncbatch man > asyncbatch.1
  man ./asyncbatch.1

Exit status: 0 printed.
"""

_FILES = (
    (
        "asyncbatch.toml",
        "Options, in the current folder or above; or [tool.asyncbatch] of pyproject.toml.",
    ),
    (
        "~/.local/state/asyncbatch",
        "Ledgers, locks and the history of runs, or $XDG_STATE_HOME/asyncbatch.",
    ),
)
_EXIT_STATUS = (
    ("0", "All succeeded, or the failures are within --max-failures."),
    ("1", "Some input failed, or the results could not be written."),
    ("2", "Wrong usage, nothing matched, or a report cannot be written: nothing was done."),
    ("75", "Another run has the lock: nothing was done."),
    ("130, 143", "Stopped by Ctrl-C; by SIGTERM or SIGHUP."),
    ("141", "The reader closed the output."),
)


def print_manual(context: typer.Context) -> None:
    """Print the manual page, to save as asyncbatch.1."""
    from asyncbatch.cli.terminal import stdout

    assert context.parent is not None
    typer.echo(manual(context.parent.command), file=stdout(), nl=False)


def manual(program: Any) -> str:
    """Return the manual page of a program: its commands, each with its help."""
    page = ManualPage()
    page.write(f'.TH ASYNCBATCH 1 "" "asyncbatch {__version__}" "User Commands"\n')
    with page.section("Name"):
        page.write_text("asyncbatch - process folders of JSON files")
    with page.section("Synopsis"):
        page.write_text("**asyncbatch** COMMAND [OPTIONS] [ARGS]...")
    with page.section("Description"):
        page.write_text(program.help)
        page.write_paragraph()
        page.write_text(
            "Each option can also be set by an environment variable, ASYNCBATCH_COMMAND_OPTION, or "
            "in a configuration file."
        )
    for command in _commands(program, None, "asyncbatch"):
        page.write_command(command)
    for title, rows in (("Exit status", _EXIT_STATUS), ("Files", _FILES)):
        with page.section(title):
            page.write_dl(rows)
    with page.section("See also"):
        page.write_text("jq(1), find(1), crontab(5), systemd.timer(5)")
    return page.getvalue()


def _commands(group: Any, parent: Any, name: str) -> Iterator[Any]:
    """Yield the context of each command that is no group, in the order of the help."""
    context = _context(group, parent, name)
    for command_name in group.list_commands(context):
        command = group.get_command(context, command_name)
        if hasattr(command, "list_commands"):
            if command.invoke_without_command:
                yield _context(command, context, command_name)
            yield from _commands(command, context, command_name)
        else:
            yield _context(command, context, command_name)


def _context(command: Any, parent: Any, name: str) -> Any:
    context = command.context_class(command, parent=parent, info_name=name)
    context.params["help_all"] = True
    return context


class ManualPage:
    """A manual page in the macros of man(7). A help is written to it as to a terminal."""

    width = 1000  # of the terminal: groups shorten the lines of their commands to it

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._is_inside = False  # whether a heading is one of a command

    def write_command(self, context: Any) -> None:
        """Write the help of a command as a section."""
        self.write(f".SH {_quoted(context.command_path.upper())}\n")
        self._is_inside = True
        context.command.format_help(context, self)
        self._is_inside = False

    def write(self, text: str) -> None:
        """Write lines of roff."""
        self._lines.append(text)

    def write_usage(self, prog: str, args: str = "") -> None:
        """Write the line that shows how to call a command."""
        self.write(f".PP\n\\fB{_escaped(prog)}\\fR {_escaped(args)}\n")

    def write_paragraph(self) -> None:
        """Begin a paragraph."""
        self.write(".PP\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs. One that begins with a backspace keeps its lines."""
        for number, paragraph in enumerate(text.strip("\n").split("\n\n")):
            if number:
                self.write_paragraph()
            if paragraph.startswith("\b\n"):
                lines = paragraph[2:].rstrip().split("\n")
                self.write(".nf\n" + "".join(f"{_escaped(line)}\n" for line in lines) + ".fi\n")
            else:
                self.write(f"{_escaped(' '.join(paragraph.split()))}\n")

    def write_dl(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write options and their texts."""
        for names, text in rows:
            self.write(f".TP\n\\fB{_escaped(names)}\\fR\n{_escaped(' '.join(text.split()))}\n")

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Write a heading before the texts inside."""
        macro = ".SS" if self._is_inside else ".SH"
        self.write(f"{macro} {_quoted(name if self._is_inside else name.upper())}\n")
        yield

    @contextmanager
    def indentation(self) -> Iterator[None]:
        """Indent nothing: man does it."""
        yield

    def getvalue(self) -> str:
        """Return the page."""
        return "".join(self._lines)


def _escaped(text: str) -> str:
    """Return a text of which roff takes nothing as its own. `**` makes a word bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")
    text = re.sub(r"\*\*(\w+)\*\*", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text.startswith(".") else text


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'
