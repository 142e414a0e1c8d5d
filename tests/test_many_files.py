"""Memory does not grow with the number of files."""

from __future__ import annotations

import pytest

MEBI = 1024 * 1024


@pytest.mark.parametrize(
    "options", [(), ("--to", "out.jsonl")], ids=["counted", "written in order"]
)
def test_a_million_files_take_no_more_memory_than_a_hundred_thousand(run, files, options):
    folder = files({"tiny.json": '{"a": 1}'})
    peaks = []
    for count in (100_000, 1_000_000):
        # A list is taken as it is: each of its lines is a file to be opened and read.
        (folder / "list").write_text("tiny.json\n" * count)
        outcome = run("--files-from", "list", "-w", "2", *options, "-o", "json")
        assert outcome.code == 0, outcome.stderr
        assert outcome.json["files"]["succeeded"] == count
        peaks.append(outcome.json["peak_memory_bytes"])
    assert peaks[1] - peaks[0] < 24 * MEBI, peaks
