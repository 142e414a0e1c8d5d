"""Configuration files: the options of commands, by table and profile."""

from __future__ import annotations

import os
import re
import tomllib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec import Struct, defstruct, inspect

from asyncbatch.config.config_search import COMMANDS, PROJECT_NAME
from asyncbatch.config.options.forms import FromEnvironment
from asyncbatch.config.pipeline_file.check import Checker, schema_of
from asyncbatch.config.pipeline_file.document import parse_toml, substitute
from asyncbatch.config.pipeline_file.mistakes import (
    Mistake,
    first_mistakes,
    format_path,
    suggestion,
)
from asyncbatch.config.secret_sources import SecretSources
from asyncbatch.core.options import Options
from asyncbatch.errors import PipelineFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.core.options import KeyPath

_REACHES = "can run code, or read and write elsewhere"
_WRITES = "writes outside the folder of this file, or to a hidden file"
_READS = "has a variable, which may be a secret"
_DATABASE_FILE = re.compile(r"(sqlite|duckdb):///")
_PROJECT_TABLE = ("tool", "asyncbatch")


class Setting(Struct, frozen=True):
    """A value of a configuration file, with its variables replaced, and its place."""

    value: Any
    path: KeyPath  # of the key in the file


class ConfigFile:
    """A configuration file. If it `is_found`, the user has not named it."""

    path: str
    text: str
    is_found: bool

    def __init__(self, path: str, text: str, *, is_found: bool = False) -> None:
        """Parse `text`, the content of the file at `path`. Raises PipelineFileError."""
        document = parse_toml(path, text.encode())
        self.path, self.text, self.is_found = path, text, is_found
        self.prefix: KeyPath = _PROJECT_TABLE if os.path.basename(path) == PROJECT_NAME else ()
        self.tables: Any = _table_at(document, self.prefix)

    def settings(
        self,
        command: str,
        table: type[Options],
        profile: str | None,
        trusted: Collection[str],
        outputs: Collection[str],
        *,
        commands: CommandPolicy,
    ) -> dict[str, Setting]:
        """Return the options of a command by their keys: those of the profile before others.

        `table` has the types of the options. A found file may not set the `trusted` ones, and the
        `outputs` only to paths below its folder. `commands` says whether `${cmd:…}` may run
        commands; a found file may not. Raises PipelineFileError.
        """
        secrets = SecretSources(
            commands=commands, refusal=self._distrust(_READS) if self.is_found else None
        )
        mistakes = list(self._misnamed_tables(profile))
        paths: list[KeyPath] = [(command,)]
        if profile is not None:
            paths.append(("profile", profile, command))
        found: dict[str, Setting] = {}
        for path in paths if not mistakes else ():
            given = _table_at(self.tables, path)
            if given is None:
                continue
            given = substitute(given, secrets, mistakes, path)
            Checker(mistakes).check(given, inspect.type_info(table), path)
            for key, value in given.items() if isinstance(given, dict) else ():
                found[key] = Setting(value, (*path, key))
                if self.is_found and key in trusted:
                    mistakes.append(Mistake((*path, key), self._distrust(_REACHES)))
                elif self.is_found and key in outputs and not self._is_below(value):
                    mistakes.append(Mistake((*path, key), self._distrust(_WRITES)))
                elif self.is_found and _has_variables(value):
                    mistakes.append(Mistake((*path, key), self._distrust(_READS)))
        if mistakes:
            raise PipelineFileError(self.path, list(map(self._message, first_mistakes(mistakes))))
        return found

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return key_lines(self.text)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of a key, or of the table or the array that has it."""
        path = (*self.prefix, *path)
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def table(self, path: KeyPath) -> str:
        """Return the table that has a key, as the file writes it."""
        return f"[{format_path((*self.prefix, *path[:-1]))}]"

    def _misnamed_tables(self, profile: str | None) -> Iterator[Mistake]:
        """Yield unknown tables of the file and of the profile, and an unknown profile."""
        profiles = _table_at(self.tables, ("profile",))
        if profiles is not None and not isinstance(profiles, dict):
            yield Mistake(("profile",), "must be a table: write [profile.NAME.run]")
            return
        if profile is not None and profile not in (profiles or {}):
            known = f"; its profiles are {', '.join(profiles)}" if profiles else ""
            near = suggestion(profile, profiles or ()) or known
            yield Mistake(("profile",), f"there is no profile {profile!r}{near}")
        yield from self._unknown_tables((), (*COMMANDS, "profile"))
        if profile is not None:
            yield from self._unknown_tables(("profile", profile), COMMANDS)

    def _unknown_tables(self, above: KeyPath, known: Sequence[str]) -> Iterator[Mistake]:
        for name in _table_at(self.tables, above) or ():
            if name not in known:
                near = suggestion(name, known) or f"; the tables are {', '.join(known)}"
                yield Mistake((*above, name), f"unknown table{near}")

    def _message(self, mistake: Mistake) -> str:
        line = self.line(mistake.path)
        place = self.path if line is None else f"{self.path}:{line}"
        return f"{place}: {format_path((*self.prefix, *mistake.path))}: {mistake.message}"

    def _is_below(self, value: Any) -> bool:
        """Whether an output, or each of several, lies below the folder of this file.

        Hidden files do not count: those of Git, for instance, can name programs to run.
        """
        if isinstance(value, list):
            return all(map(self._is_below, value))
        if not isinstance(value, str) or value == "-":
            return True
        path = _DATABASE_FILE.sub("", value)
        if "://" in path or os.path.isabs(path):
            return False
        folder = os.path.realpath(os.path.dirname(self.path) or os.curdir)
        parts = os.path.relpath(os.path.realpath(path), folder).split(os.sep)
        return not any(part.startswith(".") for part in parts)

    def _distrust(self, reason: str) -> str:
        return (
            f"{reason}, and this file was found, not named: trust it by --config {self.path}, "
            "or give --no-config"
        )


def _has_variables(value: Any) -> bool:
    """Whether a value has variables, whose content could be a secret."""
    if isinstance(value, list):
        return any(map(_has_variables, value))
    return isinstance(value, FromEnvironment)


def _table_at(document: Any, path: KeyPath) -> Any:
    """Return the value at a path of keys, or None."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def read_config(path: str, *, is_found: bool = False) -> ConfigFile:
    """Read the file at `path`. Raises PipelineFileError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise PipelineFileError(path, [f"{path}: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise PipelineFileError(path, [f"{path}: is not UTF-8"]) from None
    try:
        return ConfigFile(path, text, is_found=is_found)
    except RecursionError:
        raise PipelineFileError(path, [f"{path}: is nested too deeply"]) from None


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the number of the line on which each key of a valid TOML document begins."""
    lines: dict[KeyPath, int] = {}
    header = statement = ""
    first = 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        is_header = statement.lstrip().startswith("[")
        try:
            parsed = tomllib.loads(statement if is_header else header + statement)
        except tomllib.TOMLDecodeError:  # the statement has more lines
            continue
        for path in _key_paths(parsed):
            lines.setdefault(path, first)
        header = statement if is_header else header
        statement, first = "", number + 1
    return lines


def _key_paths(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _key_paths(value, (*above, key))


def config_schema(tables: Mapping[str, type[Options]]) -> dict[str, Any]:
    """Return the JSON Schema of configuration files, with a table for each command."""
    commands = [(name, table | None, None) for name, table in tables.items()]
    profile = defstruct("Profile", commands, bases=(Options,), frozen=True, kw_only=True)
    profiles: Any = dict[str, profile]  # type: ignore[valid-type]  # it is made just now
    fields = [*commands, ("profile", profiles | None, None)]
    file = defstruct("File", fields, bases=(Options,), frozen=True, kw_only=True)
    return schema_of(file, "asyncbatch configuration file")
