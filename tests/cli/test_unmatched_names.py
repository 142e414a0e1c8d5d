"""Names of fields on the command line: blanks, paths, and names that no record has."""

from __future__ import annotations

import csv
import json

import pytest

RECORDS = [
    {"date": "2026-01-01", "team1": "A", "score": {"ft": [2, 1], "ht": None}, "a.b": 5},
    {"date": "2026-01-02", "team1": "B", "score": {"ft": [0, 0]}, "a": {"b": 6}},
]


@pytest.fixture
def folder(files):
    return files({f"in/{n}.json": json.dumps(record) for n, record in enumerate(RECORDS)})


def cells(folder):
    with (folder / "out.csv").open(newline="") as lines:
        return list(csv.reader(lines))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_columns_may_be_paths_and_have_blanks_around_them(run, folder, workers):
    columns = 'date , score.ft,score.ft.0 ,/a/b,a.b, "a.b"'
    outcome = run("in", "--to", "out.csv", "--columns", columns, "-w", workers, "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert cells(folder) == [
        ["date", "score.ft", "score.ft.0", "/a/b", "a.b", "a.b"],
        ["2026-01-01", "[2,1]", "2", "", "5", "5"],  # a field of this name comes first
        ["2026-01-02", "[0,0]", "0", "6", "6", "6"],
    ]


@pytest.mark.parametrize(("name", "nearest"), [
    ("dat", "; the nearest one is 'date'"), ("score.fulltime", "; the nearest one is 'score'"),
    ("team2", "; the nearest one is 'team1'"), ("nothing_like_it", ""),
])  # fmt: skip
def test_a_column_that_no_record_has_is_noted(run, folder, name, nearest):
    outcome = run("in", "--to", "out.csv", "--columns", f"team1,{name}")
    assert outcome.code == 0
    assert f"no record has a value for '{name}' of --columns{nearest}\n" in outcome.stdout


def test_columns_that_some_record_has_are_not_noted(run, folder):
    outcome = run("in", "--to", "out.csv", "--columns", "team1,date,score.ft,a.b")
    assert "--columns" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("fields", "count", "is_noted"), [
    ("nope.nope", 2, True), (" team1 , date", 2, False), ("nope, team1", 2, False),
    ("score.ht", 2, True), ("score.fd", 2, True),
])  # fmt: skip
def test_dedupe_by_a_field_that_no_record_has_is_noted(run, folder, fields, count, is_noted):
    outcome = run("in", "--to", "out.jsonl", "--dedupe", fields, "--report", "r.json")
    assert outcome.code == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == count
    assert ("no record has a value for --dedupe" in outcome.stdout) == is_noted
    [*notes] = json.loads((folder / "r.json").read_text()).get("notes", [])
    assert bool(notes) == is_noted
    if fields == "score.fd":
        [note] = notes
        assert note.endswith("; the nearest one is 'score.ft'")


def test_keys_have_no_blanks_either(run, folder):
    job = ("in", "--to", "sqlite:///out.db", "--table", "t", "--key", "date , team1", "-o", "json")
    assert run(*job).json["records"]["written"] == 2
    assert run(*job, "--force").json["records"]["rejected"] == 0


def notes_of(folder):
    return json.loads((folder / "r.json").read_text()).get("notes", [])


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("options", "note"), [
    (("--key", "team"), ("no record has a value for the key field 'team'; the nearest one is"
                        " 'team1'")),
    (("--key", "date,zzz"), "no record has a value for the key field 'zzz'"),
    (("--records", "/score/fd"), ("no input has an array of records at '/score/fd'; the nearest one"
                                 " is '/score/ft'")),
])  # fmt: skip
def test_a_key_or_pointer_that_matches_nothing_is_noted(run, folder, workers, options, note):
    job = ("in", "--to", "sqlite:///out.db", "--table", "t", "-w", workers, "--report", "r.json")
    outcome = run(*job, *options)
    assert outcome.code == 1
    assert f"{note}\n" in outcome.stdout
    assert notes_of(folder) == [note]


@pytest.mark.parametrize(("options", "code"), [
    (("--key", "a"), 1),  # the second record has it
    (("--key", "date"), 0),
    (("--jq", 'if .team1 == "A" then error("x") else . end', "--key", "score2"), 1),
    (("--records", "/score/ht"), 1),  # a document with an empty array has it, too
])  # fmt: skip
def test_a_key_or_pointer_that_matches_something_is_not_noted(run, folder, options, code):
    (folder / "in/2.json").write_text('{"score": {"ht": []}, "date": "x", "score2": 1}')
    job = ("in", "--to", "sqlite:///out.db", "--table", "t", "--report", "r.json")
    assert run(*job, *options).code == code
    assert notes_of(folder) == []


def test_each_source_of_a_pipeline_is_noted_by_itself(etl, folder):
    (folder / "p.toml").write_text("""
        name = "job"
        [[source]]
        name = "good"
        type = "files"
        paths = ["in"]
        [[source]]
        name = "bad"
        type = "files"
        paths = ["in"]
        records = "/score/fd"
        [sink]
        to = "out.jsonl"
    """)
    etl("p.toml", "--report", "r.json")
    assert notes_of(folder) == [
        "no input has an array of records at '/score/fd'; the nearest one is '/score/ft'"
    ]


EVENTS = "".join(
    json.dumps({"time": second, "user": {"id": second}, "value": 1, "user.id": None, "k.l": 7})
    + "\n"
    for second in range(1_700_000_000, 1_700_000_005)
)


@pytest.mark.parametrize(("options", "beginning", "near"), [
    (("--time", "tim"), "the time field 'tim'", "time"),
    (("--by", "user.idd"), "the key field 'user.idd'", "user.id"),
    (("--by", "/user/idd"), "the key field '/user/idd'", "/user/id"),
    (("--agg", "sum:valeu"), "the aggregated field 'valeu'", "value"),
    (("--jq", ".", "--agg", "sum:valeu"), "the aggregated field 'valeu'", "value"),
])  # fmt: skip
def test_a_field_that_no_event_has_is_noted(stream, tmp_path, options, beginning, near):
    note = f"no event has a value for {beginning}; the nearest one is {near!r}"
    options = ("--window", "tumbling:5s", "--time", "time", *options, "--report", "r.json")
    code, windows, text = stream("-", *options, stdin=EVENTS + "not json\n")
    assert (code, windows) == (1, [])
    assert f"\n{note}\n" in text
    assert notes_of(tmp_path) == [note]


def test_fields_that_some_events_have_are_not_noted(stream, tmp_path):
    events = '{"time": 1, "a": 1}\n{"time": 1, "b": "x"}\n'
    options = ("--window", "tumbling:5s", "--time", "time", "--report", "r.json")
    for field in ("sum:a", "sum:b"):  # a value of another type is a value
        stream("-", *options, "--agg", field, stdin=events)
        assert notes_of(tmp_path) == []


def test_the_fields_of_by_may_be_in_one_list(stream):
    options = ("--window", "tumbling:1h", "--time", "time", "--by", ' value , "k.l" ')
    code, [window], _ = stream("-", *options, stdin=EVENTS)
    assert (code, window["key"]) == (0, {"value": 1, "k.l": 7})


DOTTED = [
    {"time": 1, "n": 1, "a": {"b": "nested"}},
    {"time": 1, "n": 1, "a.b": "whole"},
    {"time": 1, "n": 1, "a": {"b": "nested"}, "a.b": "whole"},
]
BOTH = {"nested": 1, "whole": 2}


@pytest.mark.parametrize("order", [1, -1])
def test_a_field_with_the_whole_name_comes_before_a_nested_one_in_a_stream(stream, order):
    events = "".join(json.dumps(one) + "\n" for one in DOTTED[::order])
    options = ("--window", "tumbling:1h", "--time", "time", "--agg", "count")
    for path, counts in {"a.b": BOTH, "/a/b": {"nested": 2}, "/a.b": {"whole": 2}}.items():
        _, windows, _ = stream("-", *options, "--by", path, stdin=events)
        assert {one["key"][path]: one["aggregates"]["count"] for one in windows} == counts


def test_a_field_with_the_whole_name_comes_before_a_nested_one_in_a_run(run, etl, files):
    folder = files({"in.jsonl": "".join(json.dumps(one) + "\n" for one in DOTTED)})
    run("in.jsonl", "--to", "out.csv", "--columns", "a.b,/a/b,/a.b")
    assert cells(folder)[1:] == [
        ["nested", "nested", ""], ["whole", "", "whole"], ["whole", "nested", "whole"],
    ]  # fmt: skip
    for path, count in {"a.b": 2, "/a/b": 2, "/a.b": 2}.items():
        run("in.jsonl", "--to", "out.jsonl", "--dedupe", path)
        assert len((folder / "out.jsonl").read_text().splitlines()) == count
    (folder / "p.toml").write_text("""
        name = "job"
        [[source]]
        type = "files"
        paths = ["in.jsonl"]
        [[transform]]
        type = "require"
        fields = ["a.b"]
        [[transform]]
        type = "fields"
        [transform.fields]
        x = "a.b"
        y = "/a/b"
        [sink]
        to = "out.jsonl"
    """)
    assert etl("p.toml").returncode == 0
    assert [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()] == [
        {"x": "nested", "y": "nested"}, {"x": "whole", "y": None}, {"x": "whole", "y": "nested"},
    ]  # fmt: skip


def test_a_path_in_place_of_a_pointer_gets_the_pointer_as_advice(run, folder):
    outcome = run("in", "--records", "score.ft")
    assert outcome.code == 2
    assert 'write "/score/ft"' in " ".join(outcome.stderr.split())
