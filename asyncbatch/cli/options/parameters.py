"""Parameters of commands, made from their groups of options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from asyncbatch.cli.command import print_note
from asyncbatch.cli.options.flags import flags
from asyncbatch.core.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncbatch.cli.options.flags import Flag

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH...",
        help="Folders, files, quoted globs, URLs (s3, gs, az, https), or '-' for standard input.",
    ),
]


def _show_all(context: typer.Context, is_asked: bool) -> None:
    if is_asked:
        context.params["help_all"] = True
        print_note(context.get_help())
        raise typer.Exit


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all", callback=_show_all, is_eager=True, hidden=True,
            help="Show all options, by subject.",
        ),
    ],
)  # fmt: skip


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return `function` for Typer: the fields of its groups of options become options."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Options], list[Flag]]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, Options):
            groups[name] = kind, list(flags(kind))
            parameters += [flag.typer_parameter() for flag in groups[name][1]]
        else:
            parameters.append(parameter.replace(annotation=kind))

    def command(**values: Any) -> None:
        taken = {name: _group(kind, of, values) for name, (kind, of) in groups.items()}
        others = values.keys() - made.keys() - {_HELP_ALL.name}
        function(**taken, **{name: values[name] for name in others})

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = {}  # Typer reads the signature; it would evaluate these four times
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    made = {flag.parameter: flag for _, of in groups.values() for flag in of}
    command.flags = made  # type: ignore[attr-defined]  # `SectionedCommand` reads them
    if any(flag.is_main for flag in made.values()):
        command.__signature__ = inspect.Signature([*parameters, _HELP_ALL])  # type: ignore[attr-defined]  # as above
    return command


def _group(kind: type[Options], of: list[Flag], values: Mapping[str, Any]) -> Options:
    given = {flag.field: (flag, values[flag.parameter]) for flag in of}
    return kind(
        **{name: flag.value(value) for name, (flag, value) in given.items() if value is not None}
    )
