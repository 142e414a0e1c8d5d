"""URLs that keep the escapes with which they were written.

A server may have signed them, and `%2C` in a list of values is not a comma.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote_plus

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# The scheme, the authority with its slashes, and the rest of a URL or link (RFC 3986, appendix B).
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(//[^/?#]*)?(.*)", re.DOTALL)
# Characters that stay as they are. Spaces, quotes, angle brackets, control characters and those
# beyond ASCII stand in no URL, and are escaped.
_KEPT = "".join(
    char for char in map(chr, range(0x21, 0x7F)) if char not in '"<>\\^`{|}' and not char.isalnum()
)
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEPT_IN_VALUES = "/:@!$'()*,?~"


def parse_url(text: str, base: URL | None = None) -> URL:
    """Return the URL of `text`, which may be relative to `base`. Its escapes stay as they are.

    Raises ValueError if `text` is not a URL.
    """
    scheme, authority, rest = _split(text.strip())
    rest = _LONE_PERCENT.sub("%25", quote(rest, safe=_KEPT, errors="surrogateescape"))
    if authority is not None:
        scheme = scheme or (base.scheme if base is not None else None)
        if scheme is None:
            raise ValueError("a URL must have a scheme")
        # As a host is looked up: lower case, IDNA, without the default port. Raises ValueError.
        start = str(URL(f"{scheme}:{authority}")).rstrip("/")
        return URL(start + rest, encoded=True)
    link = URL(rest if scheme is None else f"{scheme}:{rest}", encoded=True)
    return link if base is None or scheme is not None else base.join(link)


def is_absolute(link: str) -> bool:
    """Whether a link has a scheme or a host."""
    scheme, authority, _ = _split(link.strip())
    return scheme is not None or authority is not None


def with_parameters(url: URL, parameters: Mapping[str, str]) -> URL:
    """Return `url` with these query parameters in place of those with the same names."""
    query = url.raw_query_string
    for name, value in parameters.items():
        pair = f"{quote_plus(name)}={quote_plus(value, safe=_KEPT_IN_VALUES)}"
        pairs = query.split("&") if query else []
        places = [at for at, one in enumerate(pairs) if _name_of(one) == name]
        if places:
            pairs[places[0]] = pair
        else:
            pairs.append(pair)
        query = "&".join(one for at, one in enumerate(pairs) if at not in places[1:])
    return _with_query(url, query)


def with_hidden_values(url: URL, names: Collection[str], text: str) -> URL:
    """Return `url` with `text` as the value of each query parameter of these names."""
    pairs = url.raw_query_string.split("&")
    hidden = [
        f"{pair.partition('=')[0]}={text}" if _name_of(pair) in names else pair for pair in pairs
    ]
    return _with_query(url, "&".join(hidden))


def with_values_of(url: URL, other: URL, names: Collection[str]) -> URL:
    """Return `url` with the query parameters of these names as they are in `other`."""
    found = {_name_of(pair): pair for pair in other.raw_query_string.split("&")}
    pairs = [
        found.get(name, pair) if (name := _name_of(pair)) in names else pair
        for pair in url.raw_query_string.split("&")
    ]
    return _with_query(url, "&".join(pairs))


def without_parameter(url: URL, name: str) -> URL:
    """Return `url` without the query parameters of this name."""
    pairs = url.raw_query_string.split("&")
    return _with_query(url, "&".join(pair for pair in pairs if _name_of(pair) != name))


def _split(text: str) -> tuple[str | None, str | None, str]:
    match = _PARTS.fullmatch(text)
    if match is None:
        raise ValueError("is not a URL")
    return match[1], match[2], match[3]


def _name_of(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def _with_query(url: URL, query: str) -> URL:
    start = str(url.with_fragment(None)).partition("?")[0]
    return URL(f"{start}?{query}" if query else start, encoded=True)
