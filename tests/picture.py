"""The picture of the terminal in the documentation, made of a real run.

`make docs` runs `python -m tests.picture`. What differs between two runs (times, rates, memory) is
the same in every picture, so that it changes only if the output does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.commands import ROOT, environment

PATH = ROOT / "docs" / "images" / "terminal.svg"
COMMAND = (
    "asyncbatch run sample_data --jq 'select(.id)' --to sqlite:///all.db --table records "
    "--dead-letter bad.jsonl"
)
_COLUMNS = 108
_STEADY = (
    (r"(?<=\d files in )[\d.]+ s", "0.07 s"),
    (r"[\d,.]+ (?=files/s)", "460 "),
    (r"[\d,.]+ (?=records/s)", "4,500 "),
    (r"[\d,.]+ \w?B/s", "400 kB/s"),
    (r"[\d.]+ MB (?=at the peak)", "40 MB "),
)


def picture() -> str:
    """Return the picture as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "sample_data", Path(folder) / "sample_data")
        ran = subprocess.run(
            ["bash", "-c", COMMAND.replace("asyncbatch", f'"{sys.executable}" -m asyncbatch', 1)],
            cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment(FORCE_COLOR="1", COLUMNS=str(_COLUMNS), HOME=folder),
        )  # fmt: skip
    shown = ran.stdout
    for pattern, text in _STEADY:
        shown = re.sub(pattern, text, shown)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text("$ ", "bold green") + Text(COMMAND))
        console.print(Text.from_ansi(shown))
        console.print(Text("$ ", "bold green") + Text(f"echo $?\n{ran.returncode}"))
        svg = console.export_svg(title="asyncbatch", theme=MONOKAI, unique_id="asyncbatch")
    # rich loads a font from a server. Each text has its length, so any other font fits.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(picture())
