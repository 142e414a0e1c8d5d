"""Dead letters: one line for each rejection, with the exact text, for another run."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import COMMAND, PATIENCE, CommandProcess, environment, run_command
from tests.processes import wait_until
from tests.reports import balanced, rows

FUNCTIONS = """
import asyncio, os, pathlib, time

def refuse(r): raise ValueError("no \\"thanks\\"\\n")
async def refuse_async(r): raise ValueError("no \\"thanks\\"\\n")
def refuse_odd(r):
    if r["n"] % 2: raise ValueError("odd")
    return r
def dies(r):
    if r["n"] == 1: os._exit(1)
    return r
def waits(r):
    if r["n"] == 30:
        pathlib.Path("waiting").touch()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.01)
    return refuse_odd(r)
def where(r, context): return {"at": [context.file, context.record, context.line], "was": r}
"""
SCHEMA = {"s.json": '{"properties": {"n": {"type": "integer"}}}'}
# Three records that fit, three that do not, two invalid lines, and two bad files.
MIXED = {
    "fn.py": FUNCTIONS,
    **SCHEMA,
    "in/a.json": '[{"n": 1},\n {"n": "x" ,  "é":"\\u00e9"}]',
    "in/b.jsonl": b'{"n": 2}\n\n{"n": 1.50}\nnope\n\xff\xfe"\n',
    "in/c.json": "[1,",
    "in/d.json.gz": gzip.compress(b'{"n": null}'),
    "in/e.json": "",
}


def letters(folder: Path, name: str = "dl.jsonl") -> list[dict[str, object]]:
    """Return the lines of a dead letter file, decoded."""
    found: list[dict[str, object]] = rows((folder / name).read_text())
    return found


def test_the_lines(run, files):
    folder = files(MIXED)
    outcome = run("in", "no.json", "--schema", "s.json", "--dead-letter", "dl.jsonl", "-o", "json")
    report = balanced(outcome.json)
    text = (folder / "dl.jsonl").read_text()
    first, second, *_ = text.splitlines()
    assert first == (
        '{"file":"in/a.json","record":2,"line":2,"kind":"schema","message":'
        '"at /n: \\"x\\" is not of type \\"integer\\" (type)","pointer":"/n",'
        '"data":{"n":"x","é":"\\u00e9"}}'
    )
    assert second == (
        '{"file":"in/b.jsonl","record":2,"line":3,"kind":"schema","message":'
        '"at /n: 1.5 is not of type \\"integer\\" (type)","pointer":"/n","data":{"n":1.50}}'
    )
    found = letters(folder)
    short = ("file", "record", "line", "kind", "pointer", "data")
    assert [tuple(letter.get(name, "-") for name in short) for letter in found[2:]] == [
        ("in/b.jsonl", 3, 4, "invalid_json", None, "nope"),
        ("in/b.jsonl", 4, 5, "encoding", None, "-"),
        ("in/c.json", None, 1, "invalid_json", None, "-"),
        ("in/d.json.gz", 1, 1, "schema", "/n", {"n": None}),
        ("in/e.json", None, None, "empty", None, "-"),
        ("no.json", None, None, "not_found", None, "-"),
    ]
    assert found[3]["data_base64"] == base64.b64encode(b'\xff\xfe"').decode()
    told = ("file", "record", "line", "kind", "message")
    assert [[letter[name] for name in told] for letter in found] == [
        [failure[name] for name in told] for failure in report["failures"]
    ]
    assert report["records"]["rejected"] == 5
    assert report["files"]["failed"] == 4


@pytest.mark.parametrize(("function", "workers"), [("refuse", "2"), ("refuse_async", "0")])
def test_data_is_the_record_as_it_was_read(run, files, function, workers):
    texts = [
        '{"big":123456789012345678901234567890,"sum":0.1000,"e":1E+2,"zero":-0.0}',
        '{"a":1,"b":2,"a":3}',
        '"\\u00e9\\ud83d\\ude00\\/é😀\\u0000"',
        "[" * 1000 + "]" * 1000,
        " [ 1 , 2 ] ",
        "null",
        "9" * 4300,
    ]
    folder = files({
        "fn.py": FUNCTIONS, "in/a.json": f"[{','.join(texts)}]", "in/b.jsonl": "\n".join(texts),
        "in/c.json.gz": gzip.compress(texts[0].encode()),
    })  # fmt: skip
    how = ("--call", f"fn.py:{function}", "-w", workers, "--dead-letter", "dl.jsonl")
    outcome = run("in", *how, "-o", "json")
    assert balanced(outcome.json)["records"]["rejected"] == 15
    lines = (folder / "dl.jsonl").read_text().splitlines()
    kept = [line.partition('"data":')[2].removesuffix("}") for line in lines]
    expected = [text if text != " [ 1 , 2 ] " else "[1,2]" for text in texts]
    assert kept == [*expected, *expected, texts[0]]
    assert '"message":"ValueError: no \\"thanks\\"\\n"' in lines[0]


def test_each_run_replaces_the_file(run, files):
    folder = files({**MIXED, "dl.jsonl": "old"})
    assert run("in", "--dead-letter", "dl.jsonl").code == 1
    assert len(letters(folder)) == 4
    assert run("in/a.json", "--dead-letter", "dl.jsonl").code == 0
    assert (folder / "dl.jsonl").read_text() == ""
    assert [path.name for path in folder.iterdir() if ".tmp" in path.name] == []


def test_the_file_is_there_before_the_run_reports_it(files):
    folder = files(MIXED)
    command = f"{' '.join(COMMAND)} run in --dead-letter dl.jsonl -o json | (read x; cat dl.jsonl)"
    finished = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=folder,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert len(rows(finished.stdout)) == 4


def test_round_trip_until_nothing_is_left(run, files):
    folder = files(MIXED)
    how = ("-o", "json", "-w", "2")
    first = run("in", "no.json", "--schema", "s.json", "--to", "1.jsonl",
                "--dead-letter", "dl1.jsonl", *how)  # fmt: skip
    assert first.json["records"] == {
        "read": 7, "passed": 2, "dropped": 0, "rejected": 5, "written": 2,
    }  # fmt: skip
    same = run("--from-dead-letter", "dl1.jsonl", "--schema", "s.json", "--to", "2.jsonl",
               "--dead-letter", "dl2.jsonl", *how)  # fmt: skip
    assert same.code == 1
    report = balanced(same.json)
    assert report["records"]["written"] == report["records"]["passed"] == 0
    by_place = [
        sorted(letters(folder, name), key=lambda letter: (letter["file"], letter["record"] or 0))
        for name in ("dl1.jsonl", "dl2.jsonl")
    ]
    assert by_place[0] == by_place[1]
    files({"in/c.json": '[{"n": 7}]', "in/e.json": '{"n": 8}', "no.json": '[{"n": 9}, {"n": ""}]'})
    mended = run("--from-dead-letter", "dl2.jsonl", "--schema", "s.json", "--jq", ".n |= 0",
                 "--to", "3.jsonl", "--dead-letter", "dl3.jsonl", *how)  # fmt: skip
    report = balanced(mended.json)
    assert report["records"]["written"] == 7
    assert [letter["record"] for letter in letters(folder, "dl3.jsonl")] == [3, 4]
    assert [letter["file"] for letter in letters(folder, "dl3.jsonl")] == ["in/b.jsonl"] * 2
    texts = (folder / "dl3.jsonl").read_text().splitlines()
    good = [line.partition(',"data')[0] + ',"data":{"n":0}}' for line in texts]
    (folder / "dl4.jsonl").write_text("\n".join(good).replace("invalid_json", "schema"))
    last = run("--from-dead-letter", "dl4.jsonl", "--to", "4.jsonl", "--dead-letter", "dl5.jsonl")
    assert last.code == 0
    assert (folder / "dl5.jsonl").read_text() == ""
    assert len(rows((folder / "4.jsonl").read_text())) == 2


def test_a_file_whose_name_is_not_utf_8_is_run_again(run, files):
    """Not the file that has the escaped name."""
    folder = files({"in/x\\xff.json": '{"id": 99}'})
    odd = os.fsencode(folder / "in") + b"/x\xff.json"
    with open(odd, "wb") as file:
        file.write(b'{"id": 1')
    assert run(odd.decode("utf-8", "surrogateescape"), "--dead-letter", "d").code == 1
    with open(odd, "wb") as file:
        file.write(b'{"id": 1}')
    assert run("--from-dead-letter", "d", "--to", "o.jsonl").code == 0
    assert (folder / "o.jsonl").read_text() == '{"id":1}\n'


def count_of(folder: Path) -> int:
    """Return the number of rows of the table t in x.db."""
    with closing(sqlite3.connect(folder / "x.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM t").fetchone()
        return int(count)


TABLE = ("--to", "sqlite:///x.db", "--table", "t")


def test_a_table_without_a_key_gets_dead_letters_once(run, files):
    folder = files({"in/a.json": '[{"n": 1}, {"n": "x"}]', "in/b.json": '{"n": 2', **SCHEMA})
    first = ("in", "--schema", "s.json", *TABLE, "--dead-letter", "dl.jsonl")
    assert run(*first).code == 1
    files({"in/b.json": '{"n": 2}', "in/c.json": '{"n": ""}'})
    again = ("--from-dead-letter", "dl.jsonl", "--jq", ".n |= 0", *TABLE)
    assert run(*again).code == 0
    assert count_of(folder) == 3
    twice = run(*again, "--dead-letter", "dl2.jsonl", "-o", "json")
    assert twice.code == 1
    assert {one["file"] for one in twice.json["failures"]} == {"in/b.json", "dl.jsonl"}
    assert all("are in the table already" in one["message"] for one in twice.json["failures"])
    resumed = run(*again, "--resume", "-o", "json")
    assert (resumed.code, resumed.json["files"]["skipped"]) == (0, 2)
    assert count_of(folder) == 3
    # Another dead letter file may have the same name.
    assert run("in/c.json", "--schema", "s.json", "--dead-letter", "dl.jsonl").code == 1
    assert run(*again).code == 0
    assert count_of(folder) == 4
    assert run(*again, "--allow-duplicates").code == 0
    assert count_of(folder) == 5


@pytest.mark.parametrize("keeps_letters", [True, False])
@pytest.mark.parametrize("key", [(), ("--key", "n")], ids=" ".join)
def test_the_ledger_knows_the_records_that_a_table_lacks(run, files, key, keeps_letters):
    """Some are mended in each dead letter file, and others are rejected again."""
    wanted = {
        "in/a.jsonl": '{"n": 1}\n{"n": "x"}\nno JSON\n',
        "in/b.json": '[{"n": "y"}, {"n": 2}]',
    }
    folder = files(wanted | SCHEMA)
    job = ("--schema", "s.json", *TABLE, *key)

    def mended(name, *texts):
        content = (folder / name).read_text()
        for number, text in enumerate(texts, 3):
            assert text in content
            content = content.replace(text, str(number))
        (folder / f"mended-{name}").write_text(content)
        return ("--from-dead-letter", f"mended-{name}", *job)

    def places(name):
        return [(one["file"], one["record"]) for one in letters(folder, name)]

    assert run("in", *job, "--dead-letter", "1").code == 1
    assert places("1") == [("in/a.jsonl", 2), ("in/a.jsonl", 3), ("in/b.json", 1)]
    keep = ("--dead-letter", "again") if keeps_letters else ()
    assert run(*mended("1", '"x"'), *keep).code == 1
    assert count_of(folder) == 3
    assert run("in", *job, "--resume", "--dead-letter", "2").code == 0
    assert places("2") == [("in/a.jsonl", 3), ("in/b.json", 1)]
    if not key:
        twice = run(*mended("1", '"x"', '"y"', '"no JSON"'), "-o", "json")
        assert twice.code == 1
        [failure] = twice.json["failures"]
        assert failure["file"] == "mended-1"
        assert "1 of its 3 records were added" in failure["message"]
        assert "the first is record 2 of in/a.jsonl" in failure["message"]
        assert count_of(folder) == 3
    assert run(*mended("2", '"y"', '"no JSON"'), *keep).code == 1  # 4 is no object
    assert run("in", *job, "--resume", "--dead-letter", "3").code == 0
    assert places("3") == [("in/a.jsonl", 3)]
    assert count_of(folder) == (4 if not key else 3)  # 3 is there already, and is its own key


def test_a_failed_file_that_was_run_again_is_done_for_the_job(run, files):
    folder = files({"in/a.json": '{"n": 1}', "in/b.json": '{"n": 2'})
    job = (*TABLE, "--dead-letter", "dl.jsonl")
    assert run("in", *job).code == 1
    files({"in/b.json": '{"n": 2}'})
    assert run("--from-dead-letter", "dl.jsonl", *TABLE).code == 0
    assert run("in", *job, "--resume").code == 0
    assert count_of(folder) == 2


def test_rows_of_a_file_that_failed_midway_are_not_added_again(run, files):
    """A large file is committed in parts."""
    elements = ",\n".join(json.dumps({"n": n, "pad": "x" * 2000}) for n in range(20_000))
    folder = files({"in/a.json": f"[{elements}"})
    assert run("in", *TABLE, "--dead-letter", "dl.jsonl").code == 1
    before = count_of(folder)
    assert before > 10_000
    again = ("--from-dead-letter", "dl.jsonl", *TABLE)
    refused = run(*again, "-o", "json")
    assert refused.code == 1
    assert "some of its rows are in the table" in refused.json["failures"][0]["message"]
    assert count_of(folder) == before
    assert run(*again, "--resume").code == 1
    assert count_of(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "o.jsonl", "--resume"), "adds no rows to a table: leave out --resume"),
        ((*TABLE, "--retry-failed"), "leave out --retry-failed"),
        ((*TABLE, "--mode", "mirror", "--key", "n"), "leave out --mode mirror"),
    ],
)
def test_dead_letters_are_not_resumed_into(run, files, options, message):
    files({"dl.jsonl": ""})
    outcome = run("--from-dead-letter", "dl.jsonl", *options)
    assert (outcome.code, message in outcome.stderr) == (2, True), outcome.stderr


def test_records_run_again_know_where_they_come_from(run, files):
    files(MIXED)
    run("in", "--schema", "s.json", "--dead-letter", "dl.jsonl")
    again = run("--from-dead-letter", "dl.jsonl", "--call", "fn.py:where", "--to", "-")
    assert rows(again.stdout) == [
        {"at": ["in/a.json", 2, 2], "was": {"n": "x", "é": "é"}},
        {"at": ["in/b.jsonl", 2, 3], "was": {"n": 1.5}},
        {"at": ["in/d.json.gz", 1, 1], "was": {"n": None}},
    ]
    assert "in/b.jsonl:4" in again.stderr
    failures = run("--from-dead-letter", "dl.jsonl", "--schema", "s.json", "-o", "json").json[
        "failures"
    ]
    places = [(f["file"], f["record"], f["line"], f["kind"]) for f in failures]
    assert ("in/a.json", 2, 2, "schema") in places
    assert ("in/b.jsonl", 4, 5, "encoding") in places


def test_records_of_one_number_are_many_failures(run, files):
    """Dead letters of several files often have the same record number."""
    folder = files({"fn.py": FUNCTIONS, **{f"in/{n}.jsonl": '{"n": 1}\nx\n' for n in range(9)}})
    call = ("--call", "fn.py:refuse_odd", "-o", "json")
    run("in", *call, "--dead-letter", "dl.jsonl")
    outcome = run("--from-dead-letter", "dl.jsonl", *call, "--dead-letter", "dl2.jsonl")
    assert balanced(outcome.json)["records"]["rejected"] == 18
    assert letters(folder, "dl2.jsonl") == letters(folder)


def test_documents_without_the_array_are_rejected_again(run, files):
    folder = files({"a.json": '{"other": 1}', "b.jsonl": '{"items": [1]}\n{"items": 2}\n'})
    nested = ("--records", "/items", "--to", "o.jsonl")
    assert run("a.json", "b.jsonl", *nested, "--dead-letter", "dl.jsonl").code == 1
    assert [letter["data"] for letter in letters(folder)] == [{"other": 1}, {"items": 2}]
    again = run("--from-dead-letter", "dl.jsonl", *nested, "--dead-letter", "dl2.jsonl")
    assert again.code == 1
    assert (folder / "o.jsonl").read_text() == ""
    assert letters(folder, "dl2.jsonl") == letters(folder)


def test_elements_run_again_are_records(run, files):
    """`--records` finds records in documents; the data of a dead letter is a record."""
    folder = files(
        {"s.json": '{"required": ["k"]}', "a.json": '{"items": [{"items": [1]}, {"k": 1}]}'}
    )
    nested = ("--records", "/items")
    run("a.json", *nested, "--schema", "s.json", "--dead-letter", "dl.jsonl")
    again = run("--from-dead-letter", "dl.jsonl", *nested, "--to", "-")
    assert rows(again.stdout) == [{"items": [1]}]
    assert letters(folder)[0]["record"] == 1


def test_the_same_file_as_input_and_output_is_refused(run, files):
    folder = files(MIXED)
    run("in", "--schema", "s.json", "--dead-letter", "dl.jsonl")
    before = (folder / "dl.jsonl").read_bytes()
    (folder / "link.jsonl").symlink_to("dl.jsonl")
    for output in ("dl.jsonl", "in/../dl.jsonl", "link.jsonl"):
        for option in ("--dead-letter", "--to"):
            outcome = run("--from-dead-letter", "dl.jsonl", option, output)
            assert (folder / "dl.jsonl").read_bytes() == before
            assert outcome.code == 2
            assert "Traceback" not in outcome.stderr


def test_what_is_refused_leaves_no_trace(run, files):
    folder = files({**MIXED, "dl.jsonl": "old"})
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for wish in (
        ("in", "--dead-letter", "in/b.jsonl"),
        ("in", "--to", "in/b.jsonl", "--dead-letter", "dl.jsonl"),
        ("in", "--to", "nosuch/o.jsonl", "--dead-letter", "dl.jsonl"),
        ("in", "--to", "sqlite:///nosuch/o.db", "--table", "t", "--dead-letter", "dl.jsonl"),
        ("in", "--jq", ".a |", "--dead-letter", "dl.jsonl"),
        ("in", "--dead-letter", "nosuch/dl.jsonl"),
        ("in", "--dead-letter", "in"),
        ("in", "--dead-letter", ""),
        ("in", "--from-dead-letter", "dl.jsonl"),
        ("--from-dead-letter", "nosuch.jsonl"),
        ("--from-dead-letter", "in"),
        ("--from-dead-letter", ""),
    ):
        outcome = run(*wish)
        assert outcome.code == 2, wish
        assert "Traceback" not in outcome.stderr
        after = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert after == before, wish


def test_standard_input(run, files):
    folder = files({"s.json": '{"type": "integer"}'})
    how = ("--schema", "s.json", "--dead-letter", "dl.jsonl")
    run("-", *how, stdin=b'1\n"x"\n')
    assert (letters(folder)[0]["file"], letters(folder)[0]["data"]) == ("-", "x")
    again = run("--from-dead-letter", "dl.jsonl", "--to", "-")
    assert (again.stdout, again.code) == ('"x"\n', 0)
    run("-", *how, stdin=b"[1")
    outcome = run("--from-dead-letter", "dl.jsonl")
    assert outcome.code == 2
    assert "standard input" in outcome.stderr


def test_lines_that_are_no_dead_letters_are_rejected(run, files):
    lines = ['{"file": "a.json", "data": 1}', "junk", '{"x": 1}', "[]", '{"file": 3}', ""]
    files({"dl.jsonl": "\n".join(lines), "empty.jsonl": ""})
    outcome = run("--from-dead-letter", "dl.jsonl", "-o", "json")
    report = balanced(outcome.json)
    assert report["records"]["passed"] == 1
    assert {(f["file"], f["line"]) for f in report["failures"]} == {
        ("dl.jsonl", 2), ("dl.jsonl", 3), ("dl.jsonl", 4), ("dl.jsonl", 5),
    }  # fmt: skip
    assert run("--from-dead-letter", "empty.jsonl").code == 0


@pytest.mark.parametrize("target", ["o.csv", "sqlite:///o.db", "o.parquet"])
def test_rows_that_the_target_refuses_are_kept_with_all_of_their_record(run, files, target):
    """Records that are rejected long after a worker read them are dead letters too."""
    texts = [f'{{"n": {n}, "f": 1.50}}' for n in range(30)]
    texts[3], texts[17], texts[25] = "[3]", '{"n": 17, "N": 1, "f": 1.50}', '"x"'
    folder = files({"a.jsonl": "\n".join(texts), "b.json": f"[{texts[17]}]"})
    table = ("--table", "t") if "://" in target else ()
    how = ("--to", target, *table, "--load-batch", "2", "--dead-letter", "dl.jsonl", "-o", "json")
    outcome = run("a.jsonl", "b.json", *how)
    report = balanced(outcome.json)
    found = letters(folder)
    numbers = [4, 26] if target == "o.parquet" else [4, 18, 26, 1]
    assert [letter["record"] for letter in found] == numbers
    assert {letter["kind"] for letter in found} == {"sink"}
    assert report["records"]["written"] == 31 - len(found)
    if target != "o.parquet":
        assert (found[1]["data"], found[1]["line"]) == ({"n": 17, "N": 1, "f": 1.5}, 18)
        assert '"data":{"n":17,"N":1,"f":1.50}}' in (folder / "dl.jsonl").read_text()
        assert [report["files"][status] for status in ("partial", "failed")] == [1, 1]


@pytest.mark.parametrize("batch", ["3", "1"])
def test_a_record_of_several_rows_is_written_whole_or_kept_once(run, files, batch):
    folder = files({"a.json": '[{"n": 1}, {"n": 2}, {"n": 4}]'})
    program = "if .n == 2 then {a: 1}, {b: 2}, {b: 3} else {a: .n} end"
    first = '[{"n": 7}, {"n": 7}, {"n": 7}]'
    files({"0.json": first})
    how = ("--jq", program, "--to", "o.csv", "--load-batch", batch, "--dead-letter", "dl.jsonl")
    outcome = run("0.json", "a.json", *how, "-o", "json")
    assert balanced(outcome.json)["records"]["written"] == 5
    assert [letter["data"] for letter in letters(folder)] == [{"n": 2}]
    assert (folder / "o.csv").read_text() == "a\n7\n7\n7\n1\n4\n"


def test_a_file_whose_worker_died_is_one_letter(run, files):
    texts = "".join(f'{{"n": {n}}}\n' for n in (3, 5, 1, 2))
    folder = files({"fn.py": FUNCTIONS, "in/a.jsonl": texts, "in/b.jsonl": '{"n": 2}\n'})
    for cut in ((), ("-w", "2", "-b", "2")):
        how = ("--call", "fn.py:dies", "--to", "o.jsonl", "--dead-letter", "dl.jsonl", *cut)
        assert run("in", *how).code == 1
        [letter] = letters(folder)
        assert (letter["file"], letter["kind"], "data" in letter) == (
            "in/a.jsonl", "worker_crash", False,
        )  # fmt: skip
    again = run("--from-dead-letter", "dl.jsonl", "--to", "-")
    assert [row["n"] for row in rows(again.stdout)] == [3, 5, 1, 2]


def test_an_interrupted_run_keeps_what_it_has_rejected(files):
    texts = {f"in/{n:03}.json": json.dumps({"n": n}) for n in range(200)}
    folder = files({"fn.py": FUNCTIONS, "dl.jsonl": "old", **texts})
    command = ["run", "in", "--call", "fn.py:waits", "-b", "5", "-w", "1", "-o", "json",
               "--dead-letter", "dl.jsonl"]  # fmt: skip
    with CommandProcess(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        wait_until((folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Stopping")
        (folder / "go-on").touch()
        stdout, _ = process.communicate(timeout=PATIENCE)
    report = json.loads(stdout)
    found = letters(folder)
    assert process.returncode == 143
    assert len(found) == report["records"]["rejected"] > 10
    assert [letter["data"] for letter in found] == [{"n": 2 * n + 1} for n in range(len(found))]


def test_letters_come_in_input_order_with_two_workers(run, files):
    texts = {f"in/{n:03}.jsonl": "x\n" * (3000 if n % 40 == 0 else 1) for n in range(120)}
    folder = files(texts)
    outcome = run("in", "--dead-letter", "dl.jsonl", "-w", "2", "-b", "3", "-o", "json")
    found = [(letter["file"], letter["record"]) for letter in letters(folder)]
    assert found == sorted(found, key=lambda item: (item[0], item[1]))
    assert len(found) == outcome.json["records"]["rejected"] == 3 * 3000 + 117
    assert outcome.json["failures_omitted"] == len(found) - 1000


def test_dead_letters_on_a_full_disk(run, files):
    folder = files({"a.jsonl": "x\n" * 2000})
    (folder / "full.jsonl").symlink_to("/dev/full")
    outcome = run("a.jsonl", "--dead-letter", "full.jsonl", "-o", "json")
    assert (outcome.code, outcome.json["status"]) == (1, "failed")
    sink = [f for f in outcome.json["failures"] if f["kind"] == "sink"]
    assert [f["file"] for f in sink] == ["full.jsonl"]
    assert "No space left" in sink[0]["message"]
    assert "Traceback" not in outcome.stderr


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    LEAVES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=2)
@given(st.lists(JSON, min_size=30, max_size=60), st.lists(st.binary(max_size=10), max_size=10))
def test_any_record_and_any_line_comes_back_as_it_was(values, junk):
    """A record that a second run accepts is unchanged; bad lines stay bad lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s.json").write_text("false")
        good = "".join(json.dumps(value) + "\n" for value in values).encode()
        bad = b"".join(b"\xff" + line.replace(b"\n", b"") + b"\n" for line in junk)
        (folder / "a.jsonl").write_bytes(good + bad)
        for options in (
            ("a.jsonl", "--schema", "s.json", "--dead-letter", "1.jsonl"),
            ("--from-dead-letter", "1.jsonl", "--schema", "s.json", "--dead-letter", "2.jsonl"),
            ("--from-dead-letter", "2.jsonl", "--to", "o.jsonl", "--dead-letter", "3.jsonl"),
        ):
            run_command("run", *options, "-q", cwd=folder)
        assert (folder / "1.jsonl").read_bytes() == (folder / "2.jsonl").read_bytes()
        assert rows((folder / "o.jsonl").read_text()) == values
        kept = [
            base64.b64decode(str(letter["data_base64"])) for letter in letters(folder, "3.jsonl")
        ]
        assert b"".join(line + b"\n" for line in kept) == bad


@pytest.mark.parametrize("content", ['{"a": 1}\n{"a": 2}\n', "oops\n", '{\n  "a": 1\n}\n'])
def test_a_file_of_other_lines_is_no_dead_letter_file(run, files, content):
    files({"a.jsonl": content})
    outcome = run("--from-dead-letter", "a.jsonl")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "a.jsonl is not a dead letter file" in outcome.stderr
