"""Memory does not grow with the number of files."""

from __future__ import annotations

import os

import pytest

MEBI = 1024 * 1024
COUNTS = (120_000, 480_000)
COLD = ("env",)  # a fork counts the modules of its parent too


@pytest.mark.parametrize(
    "options", [(), ("--to", "out.jsonl")], ids=["counted", "written in order"]
)
def test_many_more_files_take_no_more_memory(run, files, options):
    # A thousand links to a folder of a thousand links to one file.
    folder = files({"f/0.json": '{"a": 1}'})
    for number in range(1, 1000):
        os.link(folder / "f/0.json", folder / f"f/{number}.json")
    for number in range(1000):
        (folder / f"d{number}").symlink_to("f")
    names = [f"d{outer}/{inner}.json\n" for outer in range(1000) for inner in range(1000)]
    peaks = []
    for count in COUNTS:
        # A list is not searched: each of its lines is a file to open and read.
        (folder / "list").write_text("".join(names[:count]))
        outcome = run("--files-from", "list", "-w", "2", *options, "-o", "json", prefix=COLD)
        assert outcome.code == 0, outcome.stderr
        assert outcome.json["files"]["succeeded"] == count
        peaks.append(outcome.json["peak_memory_bytes"])
    # A list has a cache of 8 MiB, which more files fill up. Each path that stays in memory is
    # an object of 48 bytes or more, and 8 bytes of a list: the allowance is below it.
    more = COUNTS[1] - COUNTS[0]
    assert peaks[1] - peaks[0] < 8 * MEBI + 32 * more, peaks
