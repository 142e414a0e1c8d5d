"""Templates of URLs and bodies: `{{ since }}`, `{{ now - 1d | date }}`, and `{id}` of a parent."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct

from asyncbatch.core.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.core.records import CursorKind, Scalar

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}")
_EXPRESSION = re.compile(
    r"\s*(since|now|today)\s*(?:([+-])\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*)?(?:\|\s*([a-z_]+)\s*)?"
)
# The path of a field of the parent, in one pair of braces.
_PLACE = re.compile(r"(?<!\{)\{([^{}\s][^{}]*)\}(?!\})")
_MICROSECONDS = 1_000_000
_FORMS: dict[str, Callable[[datetime], str | int]] = {
    "date": lambda time: time.astimezone(UTC).date().isoformat(),
    "unix": lambda time: int(time.timestamp()),
    "unix_ms": lambda time: int(time.timestamp() * 1000),
}


class TemplateValues(Struct, frozen=True):
    """The values for the templates of one pass over a URL."""

    moment: datetime  # the time at which the pass began, in UTC
    since: Scalar | None = None  # the largest value of an earlier run, or the initial one
    kind: CursorKind | None = None  # how values are compared


def template_mistakes(text: str, *, has_since: bool) -> Iterator[str]:
    """Yield the mistakes of the templates in `text`. `has_since`: `since` always has a value."""
    for found in _TEMPLATE.finditer(text):
        match = _EXPRESSION.fullmatch(found[1])
        if match is None or (match[5] is not None and match[5] not in _FORMS):
            yield (
                f"has the template {found[0]}: write {{{{ since }}}}, {{{{ now }}}} or "
                "{{ today }}, with - 1d for an earlier time, and | date, | unix or | unix_ms"
            )
        elif match[1] == "since" and not has_since:
            yield f"has the template {found[0]}, which needs incremental with initial"


def without_templates(text: str) -> str:
    """Return `text` with a digit in the place of each template."""
    return _TEMPLATE.sub("0", text)


def uses(text: str, name: str) -> bool:
    """Whether a template in `text` has the value `name`."""
    expressions = (_EXPRESSION.fullmatch(found[1]) for found in _TEMPLATE.finditer(text))
    return any(match is not None and match[1] == name for match in expressions)


def places_of(url: str) -> list[str]:
    """Return the paths of the fields of a parent that a URL has in braces."""
    return _PLACE.findall(url)


def fill_places(url: str, text_of: Callable[[str], str]) -> str:
    """Return a URL with the escaped texts of `text_of` in the place of fields of a parent."""
    return _PLACE.sub(lambda found: text_of(found[1]), url)


def texts_of(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, without the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)


def render_url(text: str, values: TemplateValues) -> str:
    """Return a URL with its templates replaced by escaped values. Raises ValueError."""
    return _TEMPLATE.sub(lambda found: quote(str(_value_of(found[1], values)), safe=""), text)


def render(value: Any, values: TemplateValues) -> Any:
    """Return a JSON value with the templates in its texts replaced. Raises ValueError.

    A text that is only a template becomes a number, if the value is one.
    """
    if isinstance(value, dict):
        return {name: render(one, values) for name, one in value.items()}
    if isinstance(value, list):
        return [render(one, values) for one in value]
    if not isinstance(value, str):
        return value
    only = _TEMPLATE.fullmatch(value)
    if only is not None:
        return _value_of(only[1], values)
    return _TEMPLATE.sub(lambda found: str(_value_of(found[1], values)), value)


def without_escapes(url: str) -> str:
    """Return a URL whose templates are not escaped."""
    return re.sub(r"%7B%7B(.*?)%7D%7D", _unescape, url)


def _unescape(found: re.Match[str]) -> str:
    text = found[1].replace("%20", " ").replace("%7C", "|")
    return f"{{{{{text}}}}}" if _EXPRESSION.fullmatch(text) else found[0]


def _value_of(expression: str, values: TemplateValues) -> Scalar:
    from asyncbatch.sources.cursor import minus_lag, to_time  # loads the transforms

    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise ValueError(f"unknown template {{{{{expression}}}}}")
    name, sign, number, unit, form = match.groups()
    value: Scalar
    if name == "since":
        if values.since is None:
            raise ValueError("the template {{ since }} has no value: set incremental.initial")
        value = values.since
    else:
        moment = values.moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        value = moment if name == "now" else moment[:10]
    kind = values.kind if name == "since" else "time"
    if number is not None:
        seconds = parse_duration(f"{number}{unit}") / _MICROSECONDS
        try:
            value = minus_lag(value, kind, seconds if sign == "-" else -seconds)
        except ValueError:
            raise ValueError(
                f"the template {{{{{expression}}}}} needs a time or a number, not {value!r}"
            ) from None
    if form is None:
        return value
    time = to_time(value, "time")
    if time is None:
        raise ValueError(f"the template {{{{{expression}}}}} needs a time, not {value!r}")
    return _FORMS[form](time)
