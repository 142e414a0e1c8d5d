"""Print the lowest versions of the libraries of users, by pyproject.toml, as constraints."""

from __future__ import annotations

import sys
import tomllib
from itertools import chain

from packaging.requirements import Requirement

from tests.commands import ROOT

_DEVELOPMENT = {"docs", "test"}  # extras of developers


def main() -> None:
    """Print a line for each library."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = (extras[name] for name in extras if name not in _DEVELOPMENT)
    for text in chain(project["dependencies"], *used):
        requirement = Requirement(text)
        for bound in requirement.specifier:
            if bound.operator == ">=":
                marker = f"; {requirement.marker}" if requirement.marker else ""
                sys.stdout.write(f"{requirement.name}=={bound.version}{marker}\n")


if __name__ == "__main__":
    main()
