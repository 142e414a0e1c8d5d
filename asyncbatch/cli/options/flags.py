"""The flags of a command line, made from the fields of groups of options."""

from __future__ import annotations

import csv
import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer
from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.options import Options


class Flag(Struct, frozen=True):
    """One option of a command line."""

    field: str  # of its group
    names: tuple[str, ...]  # the long name first
    help: str
    panel: str
    kind: Any  # the type of one value
    is_many: bool = False
    form: str | None = None  # of the text of a value
    default: Any = None
    is_required: bool = False
    least: float | None = None
    above: float | None = None
    metavar: str | None = None
    splits: bool = False  # whether commas separate values
    is_main: bool = False  # shown by --help, which shows few
    is_trusted: bool = False  # set by a configuration file only if the user names it
    is_output: bool = False  # a path that a found configuration file may set below its folder
    is_eager: bool = False  # known before other options are read
    hint: Any = None  # the type of the field, with its descriptions
    old: str | None = None  # the name that it had, which still works
    needs: tuple[str, ...] = ()  # the parameters of flags; without one of them it has no meaning
    is_filled: bool = False  # whether an empty text is no value

    @property
    def parameter(self) -> str:
        """The name of the parameter that Typer passes."""
        return self.names[0].partition("/")[0].removeprefix("--").replace("-", "_")

    def typer_parameter(self) -> inspect.Parameter:
        """Return the parameter as Typer reads it."""
        is_text = self.form is not None
        kind: Any = str if is_text else self.kind
        chosen = None if is_text or self.is_many else self.default
        if self.is_many or self.splits:
            kind = list[str]
        if chosen is None and not self.is_required:
            kind = kind | None
        given: dict[str, Any] = {} if self.least is None or is_text else {"min": self.least}
        names = self.names if self.old is None else (*self.names, self.old)
        option = typer.Option(
            *names, help=self.help, rich_help_panel=self.panel, metavar=self.metavar,
            show_envvar=False, is_eager=self.is_eager, **given,
        )  # fmt: skip
        default = inspect.Parameter.empty if self.is_required else chosen
        return inspect.Parameter(
            self.parameter, inspect.Parameter.KEYWORD_ONLY, default=default,
            annotation=Annotated[kind, option],
        )  # fmt: skip

    def value(self, given: Any) -> Any:
        """Return the value of the field. Raises BadParameter."""
        # A variable of a shell that is not set must not switch the option off.
        if (self.is_filled or self.splits) and "" in (given if self.is_many else [given]):
            raise typer.BadParameter(
                "is empty: give it a value, or leave it out", param_hint=f"'{self.names[0]}'"
            )
        if not (self.is_many or self.splits):
            return self._checked(given) if self.form is None else self._parse(given)
        texts = [name for text in given for name in split_names(text)] if self.splits else given
        if self.splits and not all(texts):
            raise typer.BadParameter(
                f"{','.join(given)!r} has an empty name", param_hint=f"'{self.names[0]}'"
            )
        return tuple(texts if self.form is None else map(self._parse, texts))

    def _parse(self, text: str) -> Any:
        from asyncbatch.config.options.forms import PARSERS

        try:
            return self._checked(PARSERS[self.form or ""](text))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"'{self.names[0]}'") from None

    def _checked(self, number: Any) -> Any:
        """Return a number within its bounds, or any other value. Raises BadParameter."""
        reason = None
        if self.least is not None and not number >= self.least:
            reason = f"must be at least {self.least:g}"
        elif self.above is not None and not number > self.above:
            reason = f"must be more than {self.above:g}"
        if reason is not None:
            raise typer.BadParameter(
                f"is {number:g}, but {reason}", param_hint=f"'{self.names[0]}'"
            )
        return number


def flags(kind: type[Options]) -> Iterator[Flag]:
    """Yield the flags of a group of options, those of its base after its own."""
    own = kind.__annotations__
    for field in sorted(fields(kind), key=lambda field: field.name not in own):
        one, is_many, metas = _read(field.type)
        extra: dict[str, Any] = {}
        for meta in reversed(metas):
            extra |= meta.extra or {}
        flag: dict[str, Any] = extra.get("flag", {})
        long = flag.get("name") or f"--{field.name.replace('_', '-')}"
        short = tuple(filter(None, (flag.get("short"), flag.get("also"))))
        text = next(meta.description for meta in metas if meta.description)
        splits = bool(flag.get("commas"))
        if is_many and not splits:
            text = f"{text} Repeatable."
        default = None if field.default is NODEFAULT else field.default
        form = flag.get("form") or extra.get("form")
        shown = flag.get("default") or _default_text(default, form, many=is_many)
        yield Flag(
            field.name,
            (long, *short),
            f"{text}  [default: {shown}]" if shown else text,
            flag.get("panel") or kind.panel,
            one,
            is_many,
            form,
            default,
            field.required,
            next((meta.ge for meta in metas if meta.ge is not None), None),
            next((meta.gt for meta in metas if meta.gt is not None), None),
            flag.get("metavar"),
            splits,
            bool(flag.get("main")),
            bool(flag.get("trusted")),
            bool(flag.get("writes")),
            bool(flag.get("eager")),
            field.type,
            flag.get("old"),
            (needs,) if isinstance(needs := flag.get("needs", ()), str) else needs,
            any(meta.min_length for meta in metas),
        )


def _read(hint: Any) -> tuple[Any, bool, list[Meta]]:
    """Return the type of one value, whether there are several, and all descriptions."""
    metas: list[Meta] = []
    is_many = False
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            metas += [meta for meta in hint.__metadata__ if isinstance(meta, Meta)]
            hint = hint.__origin__
        elif origin in (Union, UnionType):
            [hint] = [one for one in get_args(hint) if one is not NoneType]
        elif origin is tuple:
            is_many, hint = True, get_args(hint)[0]
        else:
            return hint, is_many, metas


def _default_text(default: Any, form: str | None, *, many: bool) -> str:
    """Return the text of a default value that Typer does not show itself."""
    if default in (None, ()):
        return ""
    if many:
        return ",".join(default)
    if form == "duration":
        return f"{default:g}s" if default else "0"
    if form == "count":
        return f"{default:g}"
    return "" if form is None else str(default)


def split_names(text: str) -> tuple[str, ...]:
    """Split a list of names at its commas, and drop the blanks around these.

    A name with a comma, or with a blank at an end, is in double quotes. Raises BadParameter.
    """
    try:
        text.encode()
        names = next(csv.reader([text], skipinitialspace=True), [""])
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{text!r} is not UTF-8") from None
    except csv.Error:
        raise typer.BadParameter(
            f"{text!r} is not a list of names: quote a name with a line end"
        ) from None
    return tuple(name if f'"{name}"' in text else name.strip() for name in names)
