"""Tests that each page of the documentation is in the site, and that its links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import cache
from itertools import chain
from typing import get_args

import pytest

from asyncbatch.cli.render.kinds import KINDS
from asyncbatch.core.records import FailureKind
from tests.commands import ROOT

SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*SITE, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(text):
    """Return a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path):
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    text, taken = prose(path.read_text()), Counter[str]()
    found = set(re.findall(r'<a id="([^"]+)"></a>', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{taken[slug]}" if taken[slug] else slug)
        taken[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    for link in LINK.findall(re.sub(r"`[^`\n]+`", "", prose(page.read_text()))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
        if page in SITE:
            assert target.is_relative_to(ROOT / "docs"), f"{link} is not in the site"


def names(nav):
    """Yield the pages of a navigation."""
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else names(value)


def test_each_page_has_one_place_in_the_site():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    pages = [str(path.relative_to(ROOT / "docs")) for path in SITE]
    assert sorted(names(nav)) == sorted(pages), "add the page to nav in zensical.toml"


def test_the_site_loads_nothing_from_elsewhere():
    own = chain((ROOT / "docs").rglob("*.css"), (ROOT / "docs").rglob("*.svg"))
    for path in own:
        assert not re.search(r"@import|@font-face|url\(['\"]?(https?:)?//", path.read_text()), path


def test_the_kinds_of_failure_are_all_explained_and_named():
    kinds = set(get_args(FailureKind))
    assert set(KINDS) == kinds
    _, _, rest = (ROOT / "docs" / "output.md").read_text().partition("## Kinds of failure\n")
    section, _, _ = rest.partition("\n## ")
    assert kinds <= set(re.findall(r"`(\w+)`", section))
