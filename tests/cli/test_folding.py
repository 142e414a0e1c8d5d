"""Tests of lines that are folded to the width of a terminal."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.cli.display.folding import columns, fold, fold_line

WORDS = st.lists(st.text("ab/.:é漢", min_size=1, max_size=30), min_size=1, max_size=20)


@given(words=WORDS, width=st.integers(24, 100))
def test_words_stay_whole_and_in_order(words, width):
    lines = list(fold(words, width, "  ", "    "))
    assert " ".join(line.strip() for line in lines) == " ".join(words)
    assert lines[0].startswith("  ")
    assert all(line.startswith("    ") for line in lines[1:])
    for line in lines:
        assert columns(line) <= width or " " not in line.strip()
    for line, following in pairwise(lines):  # no line is shorter than needed
        assert columns(f"{line} {following.split()[0]}") > width


def test_a_line_keeps_its_indentation_and_its_blanks():
    assert list(fold_line("  took  1 s", 80)) == ["  took  1 s"]
    folded = list(fold_line("  one two three four five six", 24))
    assert folded == ["  one two three four", "    five six"]
    assert list(fold_line("  one two three four five six", None)) == [
        "  one two three four five six"
    ]


def test_wide_characters_take_two_columns():
    assert columns("漢字") == 4
    assert list(fold(["漢" * 8, "字" * 8], 30)) == ["漢" * 8, "  " + "字" * 8]
