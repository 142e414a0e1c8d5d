"""Tests of `asyncbatch profile` and `asyncbatch schema`, against plain loops and jsonschema."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest

from asyncbatch.core.units import printable
from tests.cli.test_html_report import HOSTILE, Page
from tests.commands import run_command_text
from tests.conftest import SAMPLE_DATA, Outcome

RECORDS = [
    {
        "id": number, "name": f"name {number % 7}", "mail": f"m{number}@example.org",
        "day": f"2024-03-{number % 28 + 1:02}", "amount": number / 8 if number % 3 else None,
        "tags": ["a", "b"][: number % 3], "ok": number % 2 == 0,
        "address": {"city": "Oslo", "zip": f"{number % 50:05}"},
    }
    for number in range(3000)
]  # fmt: skip


@pytest.fixture
def command(tmp_path):
    """Return a function that runs `asyncbatch` in the folder of the test."""

    def _command(*arguments, **options):
        finished = run_command_text(*arguments, cwd=tmp_path, **options)
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return _command


def lines(records) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


def by_path(found: Outcome) -> dict[str, Any]:
    return {row["path"]: row for row in found.json["profile"]["fields"]}


def check(schema, value) -> bool:
    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_profile_equals_plain_loops(files, command, workers):
    files(
        {
            f"in/{part}.{end}": lines(some) if end == "jsonl" else json.dumps(some)
            for part, end in enumerate(["jsonl", "json", "json"])
            if (some := RECORDS[part * 1000 : part * 1000 + 1000])
        }
    )
    found = command("profile", "in", "-o", "json", "-w", workers)
    assert (found.code, found.json["records"]["read"]) == (0, 3000)
    rows = by_path(found)
    for name in ("id", "name", "mail", "day", "amount"):
        values: list[Any] = [one[name] for one in RECORDS if one[name] is not None]
        row = rows[name]
        assert (row["min"], row["max"]) == (min(values), max(values))
        assert row.get("null_share", 0.0) == pytest.approx(1 - len(values) / 3000, abs=1e-4)
        if row["distinct_is_exact"]:
            assert row["distinct"] == len(set(values))
        else:
            assert row["distinct"] == pytest.approx(len(set(values)), rel=0.15)
    assert rows["ok"]["top"] == [{"value": True, "count": 1500}, {"value": False, "count": 1500}]
    counts = Counter(one["name"] for one in RECORDS)
    assert {one["value"]: one["count"] for one in rows["name"]["top"]}.items() <= counts.items()
    assert rows["mail"]["formats"] == {"email": 1.0}
    assert rows["day"]["formats"] == {"date": 1.0}
    assert (rows["tags"]["min_items"], rows["tags"]["max_items"]) == (0, 2)
    assert rows["address.zip"]["unique"] is False
    assert found.json["profile"]["keys"] == ["id", "mail"]


def test_profile_of_mixed_files_names_failures_and_those_that_differ(files, command):
    good = {f"{number:02}.json": json.dumps({"id": number, "v": "x"}) for number in range(40)}
    odd = {"odd.json": '{"id": 1, "legacy": 2}', "list.json": "[1, 2]", "bad.json": "{"}
    files(good | odd)
    found = command("profile", ".", "-o", "json")
    assert found.code == 1
    assert [one["file"] for one in found.json["failures"]] == ["./bad.json"]
    differing = {one["file"]: one["reasons"] for one in found.json["profile"]["different_files"]}
    assert differing["./odd.json"] == [
        "lacks v, which 95% of the files have", "has legacy, which 2% of the files have",
    ]  # fmt: skip
    assert differing["./list.json"] == ["is array of integers, where 98% are object"]
    text = command("profile", ".")
    assert "Files that differ from the rest" in text.stdout
    assert "bad.json:1:2" in text.stdout


def test_reports_have_the_profile(files, command, tmp_path):
    good = {f"{n:02}.json": json.dumps({"id": n, "v": "x", HOSTILE: n % 2}) for n in range(40)}
    files(good | {"odd.json": '{"id": 1, "legacy": 2}'})
    found = command("profile", ".", "-o", "json", "--report", "p.html", "--report", "p.json")
    profile = found.json["profile"]
    assert json.loads((tmp_path / "p.json").read_text())["profile"] == profile
    page = Page(tmp_path / "p.html")
    rows = page.rows("Below each object, the most frequent first")
    assert [row["Field"] for row in rows] == [printable(one["path"]) for one in profile["fields"]]
    assert [(row["Type"], row["Distinct"]) for row in rows[:2]] == [
        ("integer", "40"), ("integer", "2"),
    ]  # fmt: skip
    assert "profile" not in page.data["report"], "twice in the page"
    shapes = page.rows("The most frequent first")
    assert [int(row["Records"]) for row in shapes] == [one["records"] for one in profile["shapes"]]
    [odd] = page.rows("The rarest first")
    assert (odd["File"], odd["Reasons"]) == (
        "./odd.json", printable("; ".join(profile["different_files"][0]["reasons"])),
    )  # fmt: skip


def test_redacted_profile_has_no_values(files, command, tmp_path):
    files({"a.jsonl": lines([{"name": f"Zora{n}", "pin": 77123 + n} for n in range(300)])})
    for form in ("text", "json"):
        reports = [f"--report={form}{end}" for end in (".html", ".json", ".md")]
        found = command("profile", "a.jsonl", "--redact", "-o", form, *reports)
        for path in tmp_path.glob(f"{form}.*"):
            assert "Zora" not in path.read_text()
        assert "xxxx" in found.stdout
        assert "Zora" not in found.stdout
        assert "7712" not in found.stdout


def test_redacted_profile_of_maps_has_no_keys(files, command, tmp_path):
    people = [{f"{name}{n}@x.com": 1 for name in ("bob", "eve")[: n % 2 + 1]} for n in range(60)]
    files({f"in/{number:02}.json": json.dumps(one) for number, one in enumerate(people)})
    (tmp_path / "in" / "odd.json").write_text('[{"zoe@x.com": 1}]')
    for form in ("text", "json"):
        reports = [f"--report={form}{end}" for end in (".html", ".json", ".md")]
        found = command("profile", "in", "--redact", "-o", form, *reports)
        for text in (found.stdout, *(path.read_text() for path in tmp_path.glob(f"{form}.*"))):
            assert "@x.com" not in text
    assert found.json["profile"]["shapes"] == [{"type": "object", "names": ["*"], "records": 61}]
    shown = command("profile", "in", "-o", "json").json["profile"]
    assert len(shown["shapes"]) == 20, "without --redact, shapes are those of the keys"


def test_an_estimated_number_of_keys_is_marked(files, command):
    files({"a.json": json.dumps({"few": dict.fromkeys(map(str, range(256)), 1),
                                 "many": dict.fromkeys(map(str, range(1200)), 1)})})  # fmt: skip
    rows = by_path(command("profile", "a.json", "-o", "json"))
    assert (rows["few"]["keys"], rows["few"]["keys_are_exact"]) == (256, True)
    assert (rows["many"]["keys_are_exact"], abs(rows["many"]["keys"] - 1200) < 200) == (False, True)
    text = command("profile", "a.json").stdout
    assert "map of 256 keys" in text
    assert f"map of ~{rows['many']['keys']:,} keys" in text


def test_statistics_of_few_values_stay_exact_with_a_long_one(files, command):
    values = ["A", "B"] * 3000 + ["x" * 300]
    files({"a.jsonl": lines({"v": value} for value in values)})
    row = by_path(command("profile", "a.jsonl", "-o", "json"))["v"]
    assert (row["distinct"], row["distinct_is_exact"]) == (3, True)
    assert row["top"] == [{"value": "A", "count": 3000}, {"value": "B", "count": 3000}]
    assert (row["min_length"], row["max_length"]) == (1, 300)
    assert max(map(len, row["examples"])) == 256
    schema = '{"properties": {"v": {"enum": ["C"]}}}'
    files({"s.json": schema})
    new = command("schema", "infer", "a.jsonl", "--update", "s.json").json
    assert new["properties"]["v"]["enum"] == ["C", "A", "B", "x" * 300]


@pytest.mark.parametrize("shift", range(2))
def test_frequent_values_of_periodic_records_are_found(files, command, shift):
    """Each eighth record has an A, another one in 100 a text that is long."""
    long = "y" * 1000
    values = ["A" if n % 8 == shift else long if n % 80 == 7 else f"v{n}" for n in range(16_000)]
    files({f"{part}.jsonl": lines({"v": one} for one in values[part::3]) for part in range(3)})
    row = by_path(command("profile", ".", "-o", "json", "-w", "2"))["v"]
    top = {one["value"]: one["count"] for one in row["top"]}
    assert top.keys() == {"A", long[:256]}
    assert 2000 - 64 <= top["A"] <= 2000
    assert 200 - 64 <= top[long[:256]] <= 200


@pytest.mark.parametrize(
    "pair",
    [
        (-1, -2), (5, 5 + 2**61 - 1), (-7, -7 - 2**61 + 1), ("a", "\0a"), ("", "\0\0"),
        ("Axxxxxxb", "axxxxxxa"),
    ],
)  # fmt: skip
def test_values_with_the_same_hash_are_unique(files, command, pair):
    others = range(10, 1000) if type(pair[0]) is int else [f"t{n}" for n in range(990)]
    for end in ([], [pair[0]]):
        files({"a.jsonl": lines({"k": value} for value in [*pair, *others, *end])})
        found = command("profile", "a.jsonl", "-o", "json")
        assert by_path(found)["k"]["unique"] is not bool(end)
        assert found.json["profile"]["keys"] == ([] if end else ["k"])


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2024-01-01T23:00:00+14:00", "2024-01-01T01:00:00-10:00"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z"),
        ("2024-01-01T10:00:00.1234565Z", "2024-01-01T10:00:00.12345651Z"),
        ("2024-01-01T10:00", "2024-01-01 11:00"),
        ("2024-01-01T10:00:00", "2024-01-01 10:00:00.01"),
    ],
)
def test_the_range_of_times_is_that_of_instants(files, command, first, last):
    zone = "Z" if first[-1] == "Z" or first[-6] in "+-" else ""
    second = dt.timedelta(seconds=1)
    start, end = map(dt.datetime.fromisoformat, (first, last))
    if zone:
        start, end = start.astimezone(dt.UTC), end.astimezone(dt.UTC)
    many = [f"{start - second * n:%Y-%m-%dT%H:%M:%S}{zone}" for n in range(1, 301)]
    many += [f"{end + second * n:%Y-%m-%dT%H:%M:%S.%f}{zone}" for n in range(1, 301)]
    for values, ends in (([last, first], (first, last)), ([*many, first], (many[299], many[599]))):
        files({"a.jsonl": lines({"t": value} for value in values)})
        row = by_path(command("profile", "a.jsonl", "-o", "json"))["t"]
        assert (row["min"], row["max"]) == ends
    # The ends are beyond the number of values that are counted, and of other offsets.
    files({"a.jsonl": lines({"t": one} for one in [*[f"{first}"] * 3, last, *many[:299]])})
    assert by_path(command("profile", "a.jsonl", "-o", "json"))["t"]["max"] == last


def test_maps_are_recognised(files, command):
    days = {f"2024-01-{day:02}": {"count": day} for day in range(1, 29)}
    files({"a.json": json.dumps({"days": days, "names": {f"k{n}": n for n in range(1500)}})})
    rows = by_path(command("profile", "a.json", "-o", "json"))
    assert rows["days"]["is_map"]
    assert rows["days"]["keys"] == 28
    assert rows["days.*.count"]["count"] == 28
    assert rows["names.*"]["count"] == 1500
    schema = command("schema", "infer", "a.json").json
    assert schema["properties"]["days"]["additionalProperties"]["required"] == ["count"]
    assert schema["properties"]["names"] == {
        "type": "object", "additionalProperties": {"type": "integer"},
    }  # fmt: skip


def test_terminal_text_is_escaped(files, command):
    files({"a.json": json.dumps([{"a\x1b[31m": "b\x1b]0;x\x07"}] * 2)})
    assert "\x1b" not in command("profile", "a.json").stdout


@pytest.mark.parametrize("options", [(), ("--strict",), ("--unit", "file")])
def test_inputs_satisfy_the_inferred_schema(files, command, options):
    names = {
        "a.json": json.dumps(RECORDS[:50]), "b.jsonl": lines(RECORDS[50:90]),
        "c.json": "[]", "d.json": '{"id": "x", "more": [null, 1.5]}', "e.json": "[[1], 2]",
    }  # fmt: skip
    folder = files({f"in/{name}": text for name, text in names.items()})
    (folder / "in" / "f.json.gz").write_bytes(gzip.compress(b"[]"))
    (folder / "in" / "g.json.gz").write_bytes(gzip.compress(json.dumps(RECORDS[:3]).encode()))
    assert command("schema", "infer", "in", *options, "--to", "s.json").code == 0
    checker = ("validate", "in") if "file" in options else ("run", "in")
    checked = command(*checker, "--schema", "s.json", "--check-formats", "-o", "json")
    assert (checked.code, checked.json["failures"]) == (0, [])
    assert not check(json.loads((folder / "s.json").read_text()), {"id": None})


def test_update_widens_and_diff_tells(files, command):
    folder = files({"1.json": '[{"a": 1, "b": "x"}]', "2.json": '[{"a": null}]'})
    assert command("schema", "infer", "1.json", "--to", "old.json").code == 0
    new = command("schema", "infer", "2.json", "--update", "old.json")
    (folder / "new.json").write_text(new.stdout)
    assert new.json["properties"]["a"] == {"type": ["integer", "null"]}
    assert new.json["required"] == ["a"]
    assert "b" in new.json["properties"]
    same = command("schema", "diff", "old.json", "new.json")
    assert (same.code, same.stdout.splitlines()[-1]) == (0, "0 changes that break")
    assert "allows  a: type: integer -> integer|null" in same.stdout
    back = command("schema", "diff", "new.json", "old.json", "-o", "json")
    assert back.code == 1
    assert {"path": "b", "rule": "required", "before": "optional", "after": "required"} in (
        back.json["breaking"]
    )
    assert command("schema", "diff", "old.json", "new.json", "--compatible", "forward").code == 1


DRAFT_4, DRAFT_7 = (f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 7))


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": DRAFT_4, "id": "https://e.com/y", "$ref": "#/definitions/a",
         "definitions": {"a": {"type": "object", "properties": {"p": {"type": "string"}}}}},
        {"$schema": DRAFT_4, "id": "https://e.com/y", "definitions": {"a": {"type": "string"}},
         "type": "object", "oneOf": [{"properties": {"p": {"$ref": "#/definitions/a"}}}]},
        {"$schema": DRAFT_7, "$id": "https://e.com/y", "definitions": {"a": {"type": "string"}},
         "allOf": [{"properties": {"p": {"$ref": "https://e.com/y#/definitions/a"}}}]},
        {"properties": {"p": {"type": "string"}, "q": {"$ref": "#"}}},
        {"$id": "https://e.com/y", "allOf": [{"required": ["p"]}], "minProperties": 1,
         "properties": {"q": {"$ref": "https://e.com/y"}, "p": {"$ref": "item"}},
         "$defs": {"i": {"$id": "item", "type": "string"}}},
        {"$anchor": "all", "properties": {"q": {"$ref": "#all"}, "p": {"not": {"$ref": "#n"}}},
         "$defs": {"n": {"$anchor": "n", "type": "integer"}}},
        {"properties": {"p": {"$id": "https://e.com/n", "$ref": "#/$defs/i",
                              "$defs": {"i": {"type": "string"}}}}},
    ],
)  # fmt: skip
def test_an_update_keeps_references(files, command, schema):
    """The inputs satisfy it, and so do the values that the old schema allowed."""
    folder = files({"s.json": json.dumps(schema), "in.jsonl": '{"p": 5, "q": {"p": 6}}\n'})
    assert command("schema", "infer", "in.jsonl", "--update", "s.json", "--to", "n.json").code == 0
    assert command("run", "in.jsonl", "--schema", "n.json").code == 0
    new = json.loads((folder / "n.json").read_text())
    values: list[Any] = [{"p": "a"}, {"p": "a", "q": {"p": "b"}}, {"q": {}}, {}, {"p": 1}]
    for value in values:
        assert check(new, value) >= check(schema, value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "https://e.com/s", "allOf": [{"required": ["p"]}],
         "properties": {"p": {"type": "string"}, "q": {"$ref": "https://e.com/s#/properties/p"}}},
        {"properties": {"p": {"$anchor": "a", "type": "string"}, "q": {"not": {"$ref": "#a"}}}},
        {"properties": {"p": {"$dynamicAnchor": "a", "type": "string"},
                        "q": {"oneOf": [{"$dynamicRef": "#a"}, {"type": "integer"}]}}},
        {"properties": {"p": {"type": "string"}, "q": {"if": {"$ref": "#"}, "then": False}}},
        {"properties": {"p": {"$id": "https://e.com/p", "type": "string"},
                        "q": {"not": {"$ref": "#/$defs/n"}}},
         "$defs": {"n": {"allOf": [{"$ref": "https://e.com/p"}]}}},
        {"$schema": DRAFT_7, "properties": {
            "p": {"$id": "#a", "type": "string"}, "q": {"not": {"$ref": "#a"}}}},
        {"properties": {"p": {"$anchor": "a", "type": "string"},
                        "q": {"contains": {"$ref": "#a"}, "maxContains": 1}}},
        {"properties": {"p": {"type": "string"}, "q": {"$ref": "#/%70roperties/p"}}},
    ],
)  # fmt: skip
def test_an_update_refuses_references_to_what_it_widens(files, command, schema):
    folder = files({"s.json": json.dumps(schema), "in.jsonl": '{"p": 5}\n'})
    found = command("schema", "infer", "in.jsonl", "--update", "s.json", "--to", "s.json")
    assert (found.code, "move this part to $defs" in found.stderr) == (2, True), found.stderr
    assert json.loads((folder / "s.json").read_text()) == schema


def test_an_update_that_cannot_be_used_is_not_written(files, command):
    """Its files are not where the new one would look for them."""
    schema = '{"properties": {"a": {"$ref": "item.json"}}}'
    folder = files({"o/s.json": schema, "o/item.json": "{}", "in.jsonl": "{}", "n/kept.json": "{}"})
    found = command("schema", "infer", "in.jsonl", "--update", "o/s.json", "--to", "n/kept.json")
    assert (found.code, "nothing was written" in found.stderr) == (2, True), found.stderr
    assert (folder / "n" / "kept.json").read_text() == "{}"
    assert [one.name for one in (folder / "n").iterdir()] == ["kept.json"]
    assert command("schema", "infer", "in.jsonl", "--update", "o/s.json").code == 0


def test_diff_reads_the_files_that_schemas_refer_to(files, command):
    shared = '{"properties": {"a": {"$ref": "item.json"}, "b": {"$ref": "#/$defs/own%20one"}}'
    same = {f"{name}/s.json": shared + ', "$defs": {"own one": {}}}' for name in "on"}
    folder = files(
        {**same, "o/item.json": '{"type": "string"}', "n/item.json": '{"type": "integer"}'}
    )
    found = command("schema", "diff", "o/s.json", "n/s.json")
    assert (found.code, found.stdout.splitlines()[0]) == (
        1, "breaks  a: type: string -> integer",
    )  # fmt: skip
    (folder / "n" / "item.json").write_text('{"type": ["string", "null"]}')
    assert command("schema", "diff", "o/s.json", "n/s.json").code == 0
    assert command("schema", "diff", "n/s.json", "o/s.json").code == 1


def test_diff_tells_of_another_draft(files, command):
    drafts = enumerate((DRAFT_4, DRAFT_7))
    files({f"{n}.json": json.dumps({"$schema": one, "const": 1}) for n, one in drafts})
    assert command("schema", "diff", "0.json", "1.json").code == 1
    assert command("schema", "diff", "1.json", "0.json").code == 0


def test_large_files_in_splits(files, command):
    """Records of a file that several workers read count once, and so does the file."""
    files({"big.jsonl": lines({"n": number, "t": "x" * 300} for number in range(120_000))})
    found = command("profile", "big.jsonl", "-o", "json", "-w", "2")
    rows = by_path(found)
    assert rows["n"]["count"] == 120_000
    assert (rows["n"]["min"], rows["n"]["max"]) == (0, 119_999)
    assert rows["n"]["distinct"] == pytest.approx(120_000, rel=0.15)
    assert found.json["profile"]["shapes"][0]["records"] == 120_000
    assert [one["files"] for one in found.json["profile"]["file_shapes"]] == [1]


def test_a_run_that_fails_early_keeps_the_old_schema(files, command):
    folder = files({"1.json": "{", "2.json": "{}", "s.json": "true"})
    found = command("schema", "infer", "1.json", "2.json", "--fail-fast", "--to", "s.json")
    assert found.code == 1
    assert (folder / "s.json").read_text() == "true"
    assert sorted(path.name for path in folder.iterdir()) == ["1.json", "2.json", "s.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", "[oops]"])
@pytest.mark.parametrize("options", [(), ("--max-failures", "5"), ("-q",)])
def test_inputs_without_records_leave_the_schema(files, command, content, options):
    folder = files({"in/a.json": content, "in/b.jsonl": "", "x.json": '{"type": "object"}'})
    found = command("schema", "infer", "in", "--to", "x.json", *options)
    assert found.code == 1
    told = "no input had an accepted record, so that no schema is written"
    assert told in (found.stderr if "-q" in options else found.stdout)
    assert (folder / "x.json").read_text() == '{"type": "object"}'


def test_an_empty_array_is_a_document(files, command):
    files({"a.json": "[]"})
    found = command("schema", "infer", "a.json", "--unit", "file", "-q")
    assert (found.code, found.json["type"]) == (0, "array")


@pytest.mark.parametrize("name", ["profile", "schema infer"])
def test_no_option_is_proposed_that_is_not_there(files, command, name):
    files({"a.json": "{", "b.json": "1"})
    found = command(*name.split(), ".")
    assert found.code == 1
    assert "--dead-letter" not in found.stdout + found.stderr


def test_a_schema_that_is_read_is_replaced_only_by_its_update(files, command):
    folder = files({"a.json": "{}", "old.json": "{}", "link.json": ""})
    (folder / "link.json").unlink()
    (folder / "link.json").symlink_to("a.json")
    for arguments, why in (
        (
            ("schema", "infer", "a.json", "--update", "old.json", "--report", "old.json"),
            "is read by",
        ),
        (("schema", "infer", "link.json", "--to", "a.json"), "link.json is an input"),
        (("profile", "link.json", "--report", "a.json"), "link.json is an input"),
    ):
        outcome = command(*arguments)
        assert (outcome.code, why in outcome.stderr) == (2, True), outcome.stderr
    assert (folder / "a.json").read_text() == (folder / "old.json").read_text() == "{}"
    update = ("schema", "infer", "a.json", "--update", "old.json", "--to", "old.json")
    assert command(*update).code == 0


def test_wrong_usage(files, command):
    files({"a.json": "{}", "s.json": '{"type": 1}', "r.json": '{"$ref": "#/properties/a"}'})
    for arguments in (
        ("profile", "a.json", "-o", "junit"), ("schema", "infer", "a.json", "-o", "json"),
        ("schema", "infer", "a.json", "--update", "s.json"), ("profile", "missing.txt*"),
        ("schema", "infer", "a.json", "--update", "r.json"),
        ("schema", "diff", "s.json", "a.json"), ("schema", "infer", "a.json", "--to", "no/s.json"),
    ):  # fmt: skip
        assert command(*arguments).code == 2, arguments


def test_sample_data(command):
    found = command("profile", str(SAMPLE_DATA / "users"))
    assert "Candidate keys: address.zip, created, email, id" in found.stdout
    assert found.stdout.splitlines()[0] == "36 records, 10 fields"
