"""Values that are texts of a form: durations, sizes, paths, URLs, secrets."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncbatch.core.options import RATE_PATTERN
from asyncbatch.core.secrets import Secret, secret_path_url, secret_url
from asyncbatch.core.units import parse_duration, parse_size, printable
from asyncbatch.errors import UsageError
from asyncbatch.formats.positions import format_pointer, parse_pointer

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_SHOWN = 80
_MICROSECONDS = 1_000_000  # of a second


class FromEnvironment(str):
    """A text with variables in it replaced; messages show it as it was `written`."""

    __slots__ = ("written",)
    written: str

    @classmethod
    def of(cls, text: str, written: str) -> FromEnvironment:
        """Return `text`, which stood as `written` in the file."""
        made = cls(text)
        made.written = written
        return made


def quote_value(value: object) -> str:
    """Return a value for a message: as it was written, shortened.

    The content of a table or an array may be secret.
    """
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, FromEnvironment):
        value = value.written
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


_RATE = re.compile(RATE_PATTERN)


def _require_text(value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {expected}")  # noqa: TRY004 - callers turn ValueError into a mistake
    return str(value)


def _pointer(value: Any) -> str:
    text = _require_text(value, "a JSON Pointer, in quotes")
    is_secret = isinstance(value, FromEnvironment)
    near = "/items" if text[:1] == "/" or is_secret else format_pointer(text.split("."))
    return _check_text(parse_pointer, value, text, f'a JSON Pointer: write "{near}" or ""')


def _path(value: Any) -> str:
    from asyncbatch.transforms.fields import parse_path

    text = _require_text(value, 'the path of a field: "a.b.c", or a JSON Pointer')
    return _check_text(parse_path, value, text, 'the path of a field: write "a.b.c" or "/a/b"')


def _check_text(parse: Callable[[str], object], value: str, text: str, expected: str) -> str:
    try:
        parse(text)
    except ValueError:
        raise ValueError(f"{quote_value(value)} is not {expected}") from None
    return text


def _duration(value: Any) -> Any:
    """Return a duration in seconds. A number is checked by its type."""
    return _span(value) / _MICROSECONDS if isinstance(value, str) else value


def _span(value: Any) -> int:
    """Return a duration, which may also be a number of seconds, in microseconds."""
    try:
        if isinstance(value, str):
            return parse_duration(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return round(value * _MICROSECONDS)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{quote_value(value)} is not a duration: write seconds, or 500ms, 5s, 1m, 1h")


def _window(value: Any) -> str:
    from asyncbatch.windows.spec import parse_window

    text = _require_text(value, "windows as text: tumbling:5s")
    parse_window(text)
    return text


def _aggregate(value: Any) -> str:
    from asyncbatch.windows.aggregates import parse_aggregate

    text = _require_text(value, "an aggregate as text: count, sum:FIELD")
    parse_aggregate(text)
    return text


def _column(value: Any) -> str:
    from asyncbatch.core.origin import parse_column

    text = _require_text(value, "a column of the origin as text: record, file=NAME")
    parse_column(text)
    return text


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError(
            f"{quote_value(value)} is not a size: write bytes, or 64K, 10MB, 1.5GiB"
        ) from None


def _rate(value: Any) -> str:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        raise ValueError(f'{quote_value(value)} is not a rate: write "20/s", "100/m" or "1000/h"')
    return f"{match[1]}/{match[2]}"


def _shard(value: Any) -> str:
    from asyncbatch.sources.selection import Shard

    text = _require_text(value, 'I/N, in quotes: "1/3"')
    try:
        Shard.parse(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return text


def _count(value: Any) -> float:
    """Return a number of lines; `all` is infinite."""
    if value == "all":
        return math.inf
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{quote_value(value)} is neither a number nor 'all'")


def _time(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


def _origin(value: Any) -> str:
    shown = _http_url(value).redacted
    scheme, _, rest = shown.rstrip("/").partition("://")
    if "/" in rest or "?" in rest or "@" in rest:
        raise ValueError("is more than an origin: write https://api.example.com, without a path")
    return f"{scheme}://{rest}"


def _http_url(value: Any) -> Secret:
    text = _require_text(value, "a URL, in quotes")
    url = secret_url(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ValueError("is not a URL with http:// or https://")
    if not rest.partition("/")[0].rpartition("@")[2].partition(":")[0]:
        raise ValueError("is a URL without a host")
    if any(character.isspace() for character in text):
        raise ValueError("is a URL with white space: write %20 instead")
    return url


def _proxy_url(value: Any) -> Secret:
    text = _require_text(value, 'a URL, or "none"')
    return secret_url(text)


def _api_url(value: Any) -> Secret:
    """Return a URL that may have templates."""
    from asyncbatch.sources.http.requests.templates import without_templates

    text = _require_text(value, "a URL, in quotes")
    _http_url(without_templates(text))
    return secret_url(text)


def _plain_url(value: Any) -> str:
    """Return a URL without a user, which may have templates."""
    text = _api_url(value).reveal()
    if "@" in urlsplit(text).netloc:
        raise ValueError("has a user: use auth of the source")
    return text


def _ping_url(value: Any) -> Secret:
    return secret_path_url(_http_url(value).reveal())


LISTEN_ADDRESS = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._-]+)?:([0-9]{1,5})|([0-9]{1,5})")
_MAX_PORT = 65535


def _listen_address(value: Any) -> str:
    """Return HOST:PORT. An address without a host is one of this machine's loopback."""
    text = _require_text(value, 'an address: "127.0.0.1:8000"')
    match = LISTEN_ADDRESS.fullmatch(text)
    if match is None or int(match[2] or match[3]) > _MAX_PORT:
        raise ValueError(
            f"{quote_value(value)} is not an address: write HOST:PORT, :PORT or [IPV6]:PORT"
        )
    return f"{match[1] or '127.0.0.1'}:{int(match[2] or match[3])}"


def _target_name(value: Any) -> Secret:
    text = _require_text(value, "the name of a target, in quotes")
    return secret_url(text) if "://" in text else Secret(text, text)


def _secret(value: Any) -> Secret:
    text = _require_text(value, "a string")
    if not text.isprintable():
        raise ValueError("has a line end or another unprintable character")
    if not text:
        raise ValueError(
            f"is empty after variables are replaced: {value.written}"
            if isinstance(value, FromEnvironment)
            else "is empty"
        )
    return Secret(text)


# the check of each form; the type's own checks follow
PARSERS: dict[str, Callable[[Any], Any]] = {
    "pointer": _pointer,
    "path": _path,
    "duration": _duration,
    "size": _size,
    "span": _span,
    "window": _window,
    "aggregate": _aggregate,
    "column": _column,
    "rate": _rate,
    "shard": _shard,
    "time": _time,
    "origin": _origin,
    "http_url": _http_url,
    "api_url": _api_url,
    "plain_url": _plain_url,
    "ping_url": _ping_url,
    "proxy_url": _proxy_url,
    "listen_address": _listen_address,
    "target_name": _target_name,
    "secret": _secret,
    "count": _count,
}
