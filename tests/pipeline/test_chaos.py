"""A short `make chaos`: runs killed at random instants and resumed lose or double no rows."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from tests.chaos.files import (
    HOWS,
    TARGETS,
    Case,
    Outcome,
    disturb,
    ended,
    is_complete,
    letters,
    make_inputs,
    rows,
    torment,
)

_KILLS = 2
_FILES = 60
_MOST_SECONDS = 0.9


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_lost_or_doubled(tmp_path, name):
    pick = random.Random(name)
    make_inputs(tmp_path / "inputs", _FILES, pick)
    (tmp_path / "runs").mkdir()
    outcome = torment(
        TARGETS[name],
        tmp_path / "runs",
        tmp_path / "inputs",
        _KILLS,
        pick=pick,
        most_seconds=_MOST_SECONDS,
    )
    assert outcome == Outcome(_KILLS, outcome.resumes, lost=0, doubled=0)
    assert outcome.resumes > 0


def change_inputs(folder, pick, number):
    """Add a file at the start, in the middle and at the end; change one; repair a bad one."""
    for place in ("0/0000a.json", "3/0031a.json", "9/z.json"):
        path = folder / place.replace(".", f"{number}.")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([person(10_000 + pick.randint(0, 9_000)) for _ in range(9)]))
    changed = pick.choice(sorted(folder.rglob("*.json")))
    changed.write_text(json.dumps([person(20_000 + pick.randint(0, 9_000)), *values(changed)]))


def values(path):
    """Return the records of a file, or none if it is bad."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return []


def person(number):
    return {"id": number, "name": f"bob {number}", "tags": []}


@pytest.mark.parametrize("name", ["sqlite upsert", "jsonl", "csv", "folder"])
def test_inputs_may_change_between_the_kills(tmp_path, name):
    pick = random.Random(name)
    inputs = tmp_path / "inputs"
    make_inputs(inputs, _FILES, pick)
    case = Case(tmp_path / "case", inputs, TARGETS[name])
    report, kills, most_seconds = None, 0, _MOST_SECONDS
    while kills < _KILLS or not is_complete(report):
        run = case.start("--resume")
        if kills < _KILLS:
            if disturb(run, pick.choice(HOWS), pick.uniform(most_seconds / 5, most_seconds)):
                kills += 1
            else:  # it has ended before
                most_seconds *= 0.8
        report = ended(run)
        if kills < _KILLS:
            change_inputs(inputs, pick, kills)
    found, told = rows(case.place), letters(case.place)
    shutil.rmtree(case.place)
    expected, expected_letters = Case(tmp_path / "fresh", inputs, TARGETS[name]).undisturbed()
    assert told == expected_letters
    if name == "sqlite upsert":  # it keeps the rows of keys that an input no longer has
        assert not expected - found
    else:
        assert found == expected
