"""A check of the built documentation: its links, its anchors, and that it needs no network.

`make docs` runs `python -m tests.site` after the build. The builder checks the links between pages;
this also checks those that its templates and the HTML inside pages make.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SITE = ROOT / "build" / "site"
# An address here is loaded with the page; one in <a href> only if the reader follows it.
_LOADED = {
    ("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"),
}  # fmt: skip
_NAMED = ("canonical", "prev", "next")  # relations that name a page, and load nothing


class _Page(HTMLParser):
    """The links of a page, as tag and address, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "link" and given.get("rel") in _NAMED:
            return
        self.links += [(tag, name, given[name]) for name in ("href", "src") if name in given]


def faults(site: Path) -> Iterator[str]:
    """Yield the faults of the links of a site."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for tag, name, link in page.links:
            where, parts = path.relative_to(site), urlsplit(link)
            if parts.scheme or parts.netloc:
                if (tag, name) in _LOADED and parts.scheme != "data":
                    yield f"{where} loads {link}"
                continue
            if path.name == "404.html":  # its links begin at the address of the site
                continue
            target = path if not parts.path else path.parent / unquote(parts.path)
            target = Path(target.resolve())
            if not target.exists() or not target.is_relative_to(site):
                yield f"{where} links to {link}, which does not exist"
            elif parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors:
                    yield f"{where} links to {link}, which lacks this anchor"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        if "url(http" in text or "url(//" in text or "@import" in text:
            yield f"{sheet.relative_to(site)} loads a file from elsewhere"


if __name__ == "__main__":
    found = sorted(set(faults(SITE)))
    sys.exit("\n".join(found) if found else 0)
