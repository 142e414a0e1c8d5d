"""Declaration of options: groups, and the types of values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from msgspec import Meta, Struct

from asyncbatch.core.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    # The keys that a table has, without defaults. An invalid value is None, also in an array.
    Given: TypeAlias = Mapping[str, Any]
    Contradictions: TypeAlias = Iterator[tuple["KeyPath", str]]

# The keys, and the indices of arrays, that lead to a value.
KeyPath: TypeAlias = tuple[str | int, ...]

RATE_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*/\s*(s|m|h)"
_NUMBER_OR_TEXT = {"type": ["number", "string"]}


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of options: a panel of `--help`, or a table of a pipeline file."""

    panel: ClassVar[str] = "Other"

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:  # noqa: ARG003 - for subclasses
        """Yield values that exclude each other: the key path below the table, and the reason."""
        yield from ()


def option(description: str, **flag: Any) -> Meta:
    """Return the description of an option.

    `flag` says how the command line differs from the field: its `name` (else that of the field),
    `short` name, `also` (another short name), `metavar`, `default` (a text for a default that is
    chosen later), `panel`, `commas` (they separate several values), and `main` (`--help` shows it;
    `--help-all` shows all).
    `needs`: the field without which it has no meaning, or several, of which one is enough; given
    alone, it is a mistake.
    `trusted`: a configuration file may set it only if the user names the file. `eager`: its value
    is known before other options are read. `old`: the name that it had; it works, with a note, and
    `--help` does not show it.
    """
    return Meta(description=description, extra={"flag": flag})


def form(name: str, examples: Any = None, **more: Any) -> Meta:
    """Return the mark of values that are texts of a form; `forms` parses them."""
    schema = _NUMBER_OR_TEXT if examples is None else {"examples": examples}
    shown = {"as": schema} if examples is None else schema
    return Meta(extra={"form": name}, extra_json_schema=shown, **more)


Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Names: TypeAlias = Annotated[tuple[Name, ...], Meta(min_length=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Natural: TypeAlias = Annotated[int, Meta(ge=0)]
Pointer: TypeAlias = Annotated[str, form("pointer", ["/items"])]
Path: TypeAlias = Annotated[str, form("path", ["a.b.c", "/a/b"])]
Seconds: TypeAlias = Annotated[float, form("duration", gt=0)]
Delay: TypeAlias = Annotated[float, form("duration", ge=0)]
Bytes: TypeAlias = Annotated[int, form("size", ge=1)]
Span: TypeAlias = Annotated[int, form("span", ge=0)]
Lines: TypeAlias = Annotated[float, form("count")]
WindowText: TypeAlias = Annotated[str, form("window", ["tumbling:5s"])]
AggregateText: TypeAlias = Annotated[str, form("aggregate", ["sum:value"])]
ShardText: TypeAlias = Annotated[str, form("shard", ["1/3"])]
HttpUrl: TypeAlias = Annotated[Secret, Meta(extra={"form": "http_url"})]
ProxyUrl: TypeAlias = Annotated[Secret, Meta(extra={"form": "proxy_url"})]
ApiUrl: TypeAlias = Annotated[Secret, Meta(extra={"form": "api_url"})]
PlainUrl: TypeAlias = Annotated[str, Meta(extra={"form": "plain_url"})]
PingUrl: TypeAlias = Annotated[Secret, Meta(extra={"form": "ping_url"})]
Rate: TypeAlias = Annotated[
    str, Meta(extra={"form": "rate"}, extra_json_schema={"pattern": RATE_PATTERN})
]
ColumnText: TypeAlias = Annotated[str, form("column", ["record", "file=source_file"])]
Time: TypeAlias = Annotated[str | int | float, form("time")]
Origin: TypeAlias = Annotated[str, Meta(extra={"form": "origin"})]
ListenAddress: TypeAlias = Annotated[str, Meta(extra={"form": "listen_address"})]
TargetName: TypeAlias = Annotated[Secret, Meta(extra={"form": "target_name"})]
SecretText: TypeAlias = Annotated[Secret, Meta(extra={"form": "secret"})]
