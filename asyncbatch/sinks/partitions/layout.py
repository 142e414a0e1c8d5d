"""The layout of a partitioned target: the fields in its name.

`out/{country}/{date:created:%Y-%m}.jsonl` names one file for each pair of a country and a month.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.paths import is_store_url
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DATE = "date:"
_EXAMPLE = "out/{country}/{date:created:%Y-%m}.jsonl"
# One brace of these begins or ends a field; two are one brace of the name.
_TOKENS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

# The longest name of a file or folder in bytes, as in most file systems.
NAME_BYTES = 255
_LEAST_BYTES = 40  # for the text of a value: a cut one has a digest of 16 characters


class PartitionField(Struct, frozen=True):
    """A field in the name of a target."""

    path: str
    format: str | None = None  # of a time, as `strftime` takes it; None: the value itself
    most_bytes: int = NAME_BYTES  # of its text in the name


class PartitionLayout(Struct, frozen=True):
    """A target's name with fields: one file for each combination of their values."""

    root: str  # the folder or prefix before the first field, with a final slash, or empty
    parts: tuple[str | PartitionField, ...]  # texts and fields after it, in order

    @property
    def fields(self) -> tuple[PartitionField, ...]:
        """The fields, in the order of the name."""
        return tuple(part for part in self.parts if isinstance(part, PartitionField))

    @property
    def pattern(self) -> re.Pattern[str]:
        """A pattern of the names below `root`, which a value cannot leave."""
        texts = [
            re.escape(part)
            if isinstance(part, str)
            else ("[^/]+" if part.format is None or "/" not in part.format else ".+")
            for part in self.parts
        ]
        return re.compile("".join(texts))


def has_braces(name: str) -> bool:
    """Whether the name of a target may have fields, or braces that are escaped."""
    return "{" in name or "}" in name


def parse_layout(name: str) -> str | PartitionLayout:
    """Return the layout of a target, or its name without escapes if it has no field.

    Raises UsageError.
    """
    parts: list[str | PartitionField] = [""]
    at = 0
    for token in _TOKENS.finditer(name):
        literal = name[at : token.start()]
        at = token.end()
        if token[0] in ("{{", "}}"):
            literal += token[0][0]
        _append(parts, literal)
        if token[1] is not None:
            parts += [_parse_field(name, token[1]), ""]
        elif len(token[0]) == 1:
            raise UsageError(
                f"--to {name}: a lone {token[0]}: write {{FIELD}} for one file for each value of a "
                f"field, as in {_EXAMPLE}, or {token[0] * 2} for a brace in a file name"
            )
    _append(parts, name[at:])
    if len(parts) == 1:
        return str(parts[0])
    return _layout(name, parts)


def _append(parts: list[str | PartitionField], literal: str) -> None:
    parts[-1] = str(parts[-1]) + literal


def _parse_field(name: str, text: str) -> PartitionField:
    from asyncbatch.transforms.fields import parse_path

    path, form = text, None
    if text.startswith(_DATE):
        path, _, form = text[len(_DATE) :].partition(":")
    problem = _flaw_of_format(form)
    if not path or (":" in path and not path.startswith("/")):
        problem = "write {FIELD} or {date:FIELD:FORMAT}"
    try:
        parse_path(path)
    except ValueError as error:
        problem = problem or str(error)
    if problem:
        raise UsageError(
            f"--to {name}: {{{text}}}: {problem}; a brace in a file name is written twice: {{{{"
        )
    return PartitionField(path, form)


def _flaw_of_format(form: str | None) -> str:
    """Return the reason against a format of times, or an empty text."""
    if form is None:
        return ""
    from datetime import UTC, datetime

    shown = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).strftime(form)
    if shown == form:
        return "a time needs a format, as in {date:created:%Y-%m}"
    if not {"", ".", ".."}.isdisjoint(shown.split("/")):
        return "the format of a time cannot have an empty name, . or .. in it"
    return ""


def _layout(name: str, parts: Sequence[str | PartitionField]) -> PartitionLayout:
    first = str(parts[0])
    root = first[: first.rfind("/") + 1]
    if "://" in first and root.count("/") < 3:
        raise UsageError(f"--to {name}: a bucket cannot be a field: write it out")
    rest = [first[len(root) :], *parts[1:]]
    skeleton = "".join(part if isinstance(part, str) else "x" for part in rest)
    if not {"", ".", ".."}.isdisjoint(skeleton.split("/")):
        raise UsageError(
            f"--to {name}: after the first field there cannot be an empty name, . or .. in it"
        )
    return PartitionLayout(root, tuple(_limited(name, rest)))


def _limited(name: str, parts: Iterable[str | PartitionField]) -> Iterable[str | PartitionField]:
    """Yield parts whose fields have the lengths that fit into one name of a file or folder."""
    component: list[str | PartitionField] = []
    for part in parts:
        if isinstance(part, PartitionField):
            component.append(part)
            continue
        first, *later = part.split("/")
        component.append(first)
        for piece in later:
            yield from _fitted(name, component)
            component = ["/", piece]
    yield from _fitted(name, component)


def _fitted(name: str, component: Sequence[str | PartitionField]) -> Iterable[str | PartitionField]:
    fields = [part for part in component if isinstance(part, PartitionField)]
    literal = sum(len(os.fsencode(part)) for part in component if isinstance(part, str))
    most = (NAME_BYTES - literal) // max(1, len(fields))
    if fields and most < _LEAST_BYTES:
        raise UsageError(f"--to {name}: a file name would be longer than {NAME_BYTES} bytes")
    for part in component:
        if isinstance(part, PartitionField):
            yield PartitionField(part.path, part.format, most)
        elif part:
            yield part


def may_write(layout: PartitionLayout, path: str) -> bool:
    """Whether a partition may be written to the file or object at `path`."""
    last = layout.parts[-1]
    if not isinstance(last, str) or not path.endswith(last.rpartition("/")[2]):
        return False  # fast
    root = layout.root
    if not is_store_url(root):
        root, path = os.path.join(os.path.realpath(root), ""), os.path.realpath(path)
    return path.startswith(root) and layout.pattern.fullmatch(path[len(root) :]) is not None
