"""The check of each value of the settings of an HTTP source. Does not import aiohttp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import inspect, structs

from asyncbatch.core.options import Options
from asyncbatch.core.units import parse_rate
from asyncbatch.formats.positions import parse_pointer
from asyncbatch.sources.http.requests.templates import without_templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.core.options import Contradictions, KeyPath
    from asyncbatch.core.secrets import Secret

NO_PROXY = "none"  # the setting of a source that uses no proxy


def table_mistakes(table: Options, path: KeyPath = ()) -> Contradictions:
    """Yield the path of each value of a program's settings that is invalid, and advice.

    Values of a pipeline file are checked where it is read, with their places in it. No message
    contains a secret.
    """
    kind = inspect.type_info(type(table))
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        yield from _value_mistakes(
            getattr(table, field.name), field.type, (*path, field.encode_name)
        )
    given = {name: value for name, value in structs.asdict(table).items() if value is not None}
    for below, advice in type(table).contradictions(given):
        yield (*path, *below), advice


def _value_mistakes(value: Any, kind: inspect.Type, path: KeyPath) -> Contradictions:
    if isinstance(value, Options):
        yield from table_mistakes(value, path)
    elif value is not None:
        if advice := _mistake(value, kind):
            yield path, advice
        for key, one, below in _parts(value, kind):
            yield from _value_mistakes(one, below, (*path, *key))


def _parts(value: Any, kind: inspect.Type) -> Iterator[tuple[KeyPath, Any, inspect.Type]]:
    """Yield the key path, the value and the type of each part to check."""
    match kind:
        case inspect.Metadata(type=inner):
            yield (), value, inner
        case inspect.UnionType(types=[one, inspect.NoneType()] | [inspect.NoneType(), one]):
            yield (), value, one
        case inspect.VarTupleType(item_type=item):
            yield from (((index,), one, item) for index, one in enumerate(value))
        case inspect.DictType(value_type=item):
            yield from (((key,), one, item) for key, one in value.items())


def _mistake(value: Any, kind: inspect.Type) -> str | None:
    """Return advice for a value that does not fit `kind`, else None."""
    match kind:
        case inspect.Metadata(extra={"form": form}) if form in _FORMS:
            try:
                _FORMS[form](value)
            except ValueError as error:
                return str(error)
        case inspect.StrType(min_length=least) | inspect.VarTupleType(min_length=least):
            return "is empty" if len(value) < (least or 0) else None
        case inspect.IntType(ge=float() | int() as least) if not value >= least:
            return f"is {value}; it cannot be less than {least:g}"
        case inspect.FloatType(ge=float() | int() as least) if not value >= least:
            return f"is {value:g}; it cannot be less than {least:g}"
        case inspect.FloatType(gt=float() | int() as bound) if not value > bound:
            return f"is {value:g}; it must be more than {bound:g}"
    return None


def check_url(url: str) -> None:
    """Raise ValueError, without secrets, for a text that is not a complete URL without a user."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a complete URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError('must not contain a password: use auth = { type = "basic", ... }')
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(
            "must not contain spaces, backslashes or control characters (%20 is a space)"
        )
    _ = parts.port  # raises ValueError for an invalid port


def check_proxy(text: str) -> None:
    """Raise ValueError, without secrets, for a text that is neither "none" nor a proxy's URL."""
    if text == NO_PROXY:
        return
    parts = urlsplit(text)
    if parts.scheme.startswith("socks"):
        raise ValueError("is a SOCKS proxy, which is not supported: name one with http://")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('must be a URL that begins with http:// or https://, or "none"')
    _ = parts.port  # raises ValueError for an invalid port


def _check_origin(origin: str) -> None:
    check_url(origin)
    parts = urlsplit(origin)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be an origin, such as https://cdn.example.com, without a path")


def _check_secret(secret: Secret) -> None:
    if not all(char.isprintable() or char == "\t" for char in secret.reveal()):
        raise ValueError("must not contain line ends or other control characters")


# The check of each form of a text, by its name in `core.options`.
_FORMS: dict[object, Callable[[Any], object]] = {
    "origin": _check_origin,
    "plain_url": lambda url: check_url(without_templates(url)),
    "pointer": parse_pointer,
    "rate": parse_rate,
    "secret": _check_secret,
}
