"""The command with jq programs, functions and schemas."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import children, cpu_seconds, wait_until
from tests.reports import balanced, rows

FUNCTIONS = """
import asyncio, math, os, sys
from datetime import date
from decimal import Decimal

print("imported")

def double(r): return {**r, "n": r["n"] * 2}
def drop_odd(r): return None if r["n"] % 2 else r
def listed(r): return [r, None, {"twin": r["n"]}]
def generated(r):
    yield r
    yield None
    yield {"twin": r["n"]}
async def awaited(r):
    await asyncio.sleep(0.001)
    return {**r, "awaited": True}
async def streamed(r):
    yield r
    await asyncio.sleep(0)
    yield {"twin": r["n"]}
def raises(r):
    if r["n"] == 2: raise LookupError("no such thing")
    return r
def raises_late(r):
    yield r
    if r["n"] == 2: raise LookupError("no such thing")
async def raises_async(r):
    await asyncio.sleep(0)
    if r["n"] == 2: raise LookupError("no such thing")
    return r
async def raises_streaming(r):
    yield r
    if r["n"] == 2: raise LookupError("no such thing")
async def cancels(r):
    if r["n"] == 2: raise asyncio.CancelledError
    return r
async def cancels_itself(r):
    if r["n"] == 2:
        asyncio.current_task().cancel()
        await asyncio.sleep(60)
    return r
async def exits_generator(r):
    if r["n"] == 2: raise GeneratorExit
    return r
def where(r, context): return {"at": [context.file, context.record, context.line]}
async def where_async(r, context): return {"at": [context.file, context.record, context.line]}
def noisy(r):
    print("from print"); sys.stdout.write("from write\\n"); os.write(1, b"from the descriptor\\n")
    return r
async def noisy_async(r):
    print("from print"); sys.stdout.write("from write\\n")
    return r
async def noisy_beneath(r):
    os.write(1, b"from the descriptor\\n")
    child = await asyncio.create_subprocess_exec("echo", "from a child")
    await child.wait()
    return r
def as_is(r): return r
async def as_is_async(r): return r
def dies(r):
    if r["n"] == 2: os._exit(9)
    return r
def leaves(r): sys.exit("leaving")
def nested(r):
    value = 1
    for _ in range(r): value = [value]
    return {"it": value}
async def forever(r):
    open("called", "w").close()
    await asyncio.sleep(3600)
def needs_three(r, a, b): return r
nothing = None

now = most = 0
async def counted(r):
    global now, most
    now += 1
    most = max(most, now)
    if os.path.exists("at-once"):
        while most < int(open("at-once").read()):
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.003 if r["n"] % 7 else 0.006)
    now -= 1
    return {"n": r["n"], "most": most}

RETURNS = {
    "object": object(), "set": {1}, "bytes": b"x", "nan": math.nan, "inf": [math.inf],
    "key": {1: 2}, "half": "\\ud800", "half key": {"\\ud800": 1}, "digits": 10**5000,
    "function": print,
}
RETURNS["itself"] = RETURNS["inside"] = []
RETURNS["itself"].append({"x": RETURNS["itself"]})
def returned(r): return {"it": RETURNS[r["what"]]}
def fine(r): return {"date": date(2020, 2, 3), "sum": Decimal("1.10"), "pair": (1, 2)}
"""
ONE_TO_THREE = '[{"n": 1}, {"n": 2}, {"n": 3}]'


@pytest.fixture
def folder(files):
    """A folder with functions in fn.py and the records n = 1, 2, 3 in a.json."""
    return files({"fn.py": FUNCTIONS, "a.json": ONE_TO_THREE})


def reasons(outcome):
    return [(f["record"], f["kind"], f["message"]) for f in balanced(outcome.json)["failures"]]


# jq


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        (["."], [{"n": 1}, {"n": 2}, {"n": 3}]),
        (["select(.n > 1) | .n"], [2, 3]),
        ([".n, -.n"], [1, -1, 2, -2, 3, -3]),
        ([".n, .n", ". * 10", "select(. != 20)"], [10, 10, 30, 30]),
        (["env, $ENV"], [{}] * 6),
        (['"\\(.n)é😀\\u0000"'], ["1é😀\0", "2é😀\0", "3é😀\0"]),
        (["[limit(.n; repeat(1))] | length"], [1, 2, 3]),
        (["def env: 7; env"], [7] * 3),
        ([".n as $n | reduce range($n) as $i (0; . + $i)"], [0, 1, 3]),
    ],
)
def test_jq(run, folder, programs, expected):
    options = [part for program in programs for part in ("--jq", program)]
    outcome = run("a.json", *options, "--to", "-", env={"SECRET": "s"})
    assert rows(outcome.stdout) == expected
    assert outcome.code == 0


def test_jq_sees_the_environment_only_if_it_may(run, folder):
    program = ("--jq", "[env.SECRET, $ENV.SECRET, (env | length > 1)]", "--limit", "1")
    env = {"SECRET": "s"}
    assert rows(run("a.json", *program, "--to", "-", env=env).stdout)[0] == [None, None, False]
    shown = run("a.json", *program, "--jq-env", "--to", "-", env=env)
    assert rows(shown.stdout)[0] == ["s", "s", True]


def test_a_jq_error_rejects_its_record_with_its_message(run, folder):
    program = 'if .n == 2 then .n, error("boo") elif .n == 3 then .[0] else . end'
    outcome = run("a.json", "--jq", program, "--to", "o.jsonl", "-o", "json")
    (_, _, boo), (_, _, wrong) = reasons(outcome)
    assert boo == "jq: boo"
    assert wrong.startswith("jq: Cannot index object with number")
    assert rows((folder / "o.jsonl").read_text()) == [{"n": 1}]
    assert outcome.json["records"]["written"] == 1
    assert [f["line"] for f in outcome.json["failures"]] == [1, 1]


@pytest.mark.parametrize(
    ("program", "place"),
    [
        (".a |", "line 1, column 5"),
        (".a\n| foo(1)", "line 2, column 3"),
        ("#", "not given"),
        ('import "a" as a; .', "import"),
    ],
)
def test_a_jq_program_that_does_not_compile(run, program, place):
    outcome = run("nosuch.json", "--jq", ".", "--jq", program)
    assert outcome.code == 2
    assert place in outcome.stderr
    assert "not_found" not in outcome.stderr
    assert "Traceback" not in outcome.stderr


BIG = "9007199254740993"


def test_jq_changes_no_integer_in_silence(run, files):
    items = [BIG, f"-{BIG}", "9007199254740992", f'"{BIG}"', f'{{"{BIG}": 1}}', "1" * 30, "0.1"]
    files({"a.json": f"[{', '.join(items)}]"})
    outcome = run("a.json", "--jq", ".", "-o", "json", "--to", "o.jsonl")
    assert [record for record, *_ in reasons(outcome)] == [1, 2, 6]
    assert all("2^53" in message and "--jq-lossy" in message for *_, message in reasons(outcome))
    lossy = run("a.json", "--jq", ".", "--jq-lossy", "--to", "-")
    assert lossy.code == 0
    assert rows(lossy.stdout)[:2] == [2**53, -(2**53)]
    assert rows(run("a.json", "--to", "-").stdout)[0] == int(BIG)


def test_floats_come_through_jq_as_they_were(run, files):
    numbers = "[0.1, 1.5e300, 1e20, -0.0, 5e-324, 1.7976931348623157e308, 1e15, 2.5, 3.0e-7]"
    files({"a.json": numbers})
    outcome = run("a.json", "--jq", ".", "--to", "-")
    found = rows(outcome.stdout)
    assert found == json.loads(numbers)
    assert len(outcome.stdout) < 200  # 1e20 is not written with 21 digits, 1.5e300 not with 301


def test_a_chain_of_jq_programs_is_a_pipe(run, files):
    files({"a.json": "[1, 2, 3e20]"})
    programs = (". * 9007199254740992", ". + 1", "[., . * 2]")
    chained = [part for program in programs for part in ("--jq", program)]
    piped = run("a.json", "--jq", " | ".join(programs), "--to", "-")
    assert run("a.json", *chained, "--to", "-").stdout == piped.stdout
    assert piped.code == 0


@pytest.mark.parametrize(
    ("target", "count"),
    [("o.jsonl", 1_000_000), ("sqlite:///o.db", 50_000), ("out/", 50_000)],
)
def test_a_million_outputs_and_then_an_error_leave_nothing(run, folder, target, count):
    program = f"if .n == 2 then ({{n: range({count})}}), error else . end"
    table = ("--table", "t") if "://" in target else ()
    outcome = run("a.json", "--jq", program, "--to", target, *table, "-o", "json")
    report = balanced(outcome.json)
    assert report["records"] == {"read": 3, "passed": 2, "dropped": 0, "rejected": 1, "written": 2}
    assert report["peak_memory_bytes"] < 200_000_000
    if target == "o.jsonl":
        assert rows((folder / target).read_text()) == [{"n": 1}, {"n": 3}]
    if target == "out/":
        assert json.loads((folder / "out/a.json").read_text()) == [{"n": 1}, {"n": 3}]


def test_a_record_that_becomes_very_many(run, folder):
    program = "if .n == 2 then {n: range(300000)} else . end"
    outcome = run("a.json", "--jq", program, "--to", "o.jsonl.zst", "-o", "json")
    report = balanced(outcome.json)
    assert report["records"]["passed"] == 3
    assert report["records"]["written"] == 300_002
    assert report["peak_memory_bytes"] < 200_000_000


@pytest.mark.parametrize(
    ("workers", "number"), [((), signal.SIGINT), (("-w", "0"), signal.SIGTERM)]
)
def test_a_jq_program_that_never_ends_is_stopped(folder, workers, number):
    with CommandProcess(
        ["run", "a.json", "--jq", "def f: f; f", "--grace", "0.2", *workers],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        # A worker that has used more CPU time than its start needs is running the program.
        wait_until(lambda: any(cpu_seconds(child) > 2 for child in children(process.pid)))
        process.send_signal(number)
        try:
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]


# Functions


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("double", [{"n": 2}, {"n": 4}, {"n": 6}]),
        ("drop_odd", [{"n": 2}]),
        ("listed", [{"n": 1}, {"twin": 1}, {"n": 2}, {"twin": 2}, {"n": 3}, {"twin": 3}]),
        ("generated", [{"n": 1}, {"twin": 1}, {"n": 2}, {"twin": 2}, {"n": 3}, {"twin": 3}]),
        ("awaited", [{"n": n, "awaited": True} for n in (1, 2, 3)]),
        ("streamed", [{"n": 1}, {"twin": 1}, {"n": 2}, {"twin": 2}, {"n": 3}, {"twin": 3}]),
    ],
)
def test_kinds_of_functions(run, folder, function, expected):
    outcome = run("a.json", "--call", f"fn.py:{function}", "--to", "-")
    assert rows(outcome.stdout) == expected
    assert outcome.code == 0
    dropped = 2 if function == "drop_odd" else 0
    assert f"{3 - dropped} passed" in outcome.stderr


def test_functions_of_modules_and_in_chains(run, folder):
    calls = ("--call", "fn:drop_odd", "--call", "./fn.py:awaited", "--call", "fn:double")
    outcome = run("a.json", *calls, "--jq", ".n += 1", "--to", "-")
    assert rows(outcome.stdout) == [{"n": 4, "awaited": True}, {"n": 8, "awaited": True}]


@pytest.mark.parametrize("function", ["raises", "raises_late", "raises_async", "raises_streaming"])
def test_what_a_function_raises_rejects_its_record(run, folder, function):
    call = ("--call", f"fn.py:{function}")
    outcome = run("a.json", *call, "--to", "o.jsonl", "-o", "json", "-v")
    assert reasons(outcome) == [(2, "transform", "LookupError: no such thing")]
    assert rows((folder / "o.jsonl").read_text()) == [{"n": 1}, {"n": 3}]
    assert "Traceback" in outcome.stderr
    assert f"in {function}" in outcome.stderr
    assert "asyncbatch/transforms" not in outcome.stderr


def test_no_traceback_unless_asked_for(run, folder):
    outcome = run("a.json", "--call", "fn.py:raises")
    assert "a.json:1:12: LookupError: no such thing (record 2, byte 11)" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("function", ["cancels", "cancels_itself", "exits_generator"])
def test_an_async_function_that_breaks_off_rejects_its_record(run, folder, function):
    outcome = run("a.json", "--call", f"fn.py:{function}", "--to", "o.jsonl", "-o", "json")
    [(record, kind, _)] = reasons(outcome)
    assert (record, kind) == (2, "transform")
    assert rows((folder / "o.jsonl").read_text()) == [{"n": 1}, {"n": 3}]


def test_a_function_that_exits_rejects_its_record(run, folder):
    outcome = run("a.json", "--call", "fn.py:leaves", "-o", "json")
    assert reasons(outcome) == [(n, "transform", "SystemExit: leaving") for n in (1, 2, 3)]


@pytest.mark.parametrize("function", ["where", "where_async"])
def test_the_context_of_a_record(run, folder, files, function):
    files({"l.jsonl": '{"n": 1}\n\n{"n": 2}\n', "p.json": '{"items":\n[1,\n2]}'})
    call = ("--call", f"fn.py:{function}", "--to", "-")
    assert [row["at"] for row in rows(run("l.jsonl", *call).stdout)] == [
        ["l.jsonl", 1, 1], ["l.jsonl", 2, 3],
    ]  # fmt: skip
    nested = rows(run("p.json", "--records", "/items", *call).stdout)
    assert [row["at"][:2] for row in nested] == [["p.json", 1], ["p.json", 2]]


@pytest.mark.parametrize("options", [("noisy",), ("noisy_async",), ("noisy", "-w", "0")])
def test_what_functions_print_does_not_mix_with_results(run, folder, options):
    call = ("--call", f"fn.py:{options[0]}", *options[1:])
    for output in (("--to", "-"), ("-o", "jsonl")):
        outcome = run("a.json", *call, *output)
        for line in rows(outcome.stdout):
            assert isinstance(line, dict)
        for words in ("imported", "from print", "from write"):
            assert words in outcome.stderr
        assert outcome.code == 0


def test_what_async_functions_write_beneath_print_does_not_mix_either(run, folder):
    for output in (("--to", "-"), ("-o", "json")):
        outcome = run("a.json", "--call", "fn.py:noisy_beneath", *output)
        for line in rows(outcome.stdout):
            assert isinstance(line, dict)
        assert outcome.stderr.count("from the descriptor") == 3
        assert outcome.stderr.count("from a child") == 3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fn.py:nosuch", "nosuch"),
        ("fn.py:nothing", "not a function"),
        ("fn.py:needs_three", "cannot be called"),
        ("fn.py", "does not name a function"),
        ("nosuch.py:f", "no such file"),
        ("nosuch:f", "no module"),
        ("syntax.py:f", "syntax.py:1"),
        ("raising.py:f", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_imported_is_a_usage_error(run, files, spec, words):
    files({"fn.py": FUNCTIONS, "syntax.py": "def f(r) return r", "raising.py": "1 / 0"})
    outcome = run("nosuch.json", "--call", spec, "-o", "json")
    assert outcome.code == 2
    assert words in outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr


def test_what_json_cannot_hold_rejects_its_record(run, files):
    kinds = ("object", "set", "bytes", "nan", "inf", "key", "half", "half key", "digits",
             "function", "itself")  # fmt: skip
    files({"fn.py": FUNCTIONS, "a.json": json.dumps([{"what": kind} for kind in kinds])})
    for target in ((), ("--to", "o.csv")):
        outcome = run("a.json", "--call", "fn.py:returned", *target, "-o", "json")
        found = reasons(outcome)
        assert [record for record, *_ in found] == list(range(1, len(kinds) + 1))
        assert {kind for _, kind, _ in found} == {"transform"}
        assert all("returned" in message for *_, message in found)
    assert "/it" in found[0][2]


def test_values_of_rich_types_become_json(run, folder):
    outcome = run("a.json", "--call", "fn.py:fine", "--to", "-")
    assert rows(outcome.stdout)[0] == {"date": "2020-02-03", "sum": "1.10", "pair": [1, 2]}


@pytest.mark.parametrize(
    ("shape", "at_once"), [("one file", 1), ("many files", 7), ("one file", 50)]
)
def test_call_concurrency_bounds_and_order_stays(run, files, shape, at_once):
    count = {1: 8, 7: 70, 50: 300}[at_once]
    records = [{"n": n} for n in range(count)]
    if shape == "one file":
        texts = {"in/a.json": json.dumps(records)}
    else:
        texts = {f"in/{n:04}.json": json.dumps(record) for n, record in enumerate(records)}
    files({"fn.py": FUNCTIONS, **texts})
    if shape == "one file":  # The first calls wait until there are as many at once as may be.
        files({"at-once": str(at_once)})
    call = ("--call", "fn.py:counted", "--call-concurrency", str(at_once))
    found = rows(run("in", *call, "--to", "-").stdout)
    assert [row["n"] for row in found] == list(range(count))
    most = max(row["most"] for row in found)
    # Of many files, a busy machine may have read few while the first calls run.
    assert (at_once // 2 if shape == "one file" else 1) < most <= at_once


def test_many_records_through_an_async_function_take_little_memory(run, files):
    line = json.dumps({"n": 1, "pad": "x" * 1000})
    files({"fn.py": FUNCTIONS, "a.jsonl": f"{line}\n" * 40_000})
    outcome = run("a.jsonl", "--call", "fn.py:as_is_async", "--to", "o.jsonl", "-o", "json")
    report = balanced(outcome.json)
    assert report["records"]["written"] == 40_000
    assert report["peak_memory_bytes"] < 150_000_000


def test_a_hanging_async_function_is_given_up_after_the_grace(folder):
    command = ["run", "a.json", "--call", "fn.py:forever", "--grace", "0.2", "-o", "json"]
    with CommandProcess(
        command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        wait_until((folder / "called").exists, running=process)
        process.send_signal(signal.SIGINT)
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert json.loads(stdout)["status"] == "interrupted"
    assert "Traceback" not in stderr


# Schemas

DRAFTS: dict[str, dict[str, Any]] = {
    "http://json-schema.org/draft-04/schema#": {"minimum": 2, "exclusiveMinimum": True},
    "http://json-schema.org/draft-06/schema#": {"exclusiveMinimum": 2, "const": 3},
    "http://json-schema.org/draft-07/schema#": {"if": {"maximum": 2}, "then": False},
    "https://json-schema.org/draft/2019-09/schema": {"$defs": {"a": {"const": 3}},
                                                     "$ref": "#/$defs/a"},
    "https://json-schema.org/draft/2020-12/schema": {"not": {"maximum": 2}},
}  # fmt: skip


@pytest.mark.parametrize("draft", DRAFTS)
def test_drafts(run, files, draft):
    files({"s.json": json.dumps({"$schema": draft, **DRAFTS[draft]}), "a.json": "[1, 2, 3]"})
    outcome = run("a.json", "--schema", "s.json", "-o", "json")
    assert [(record, kind) for record, kind, _ in reasons(outcome)] == [
        (1, "schema"), (2, "schema"),
    ]  # fmt: skip


USER = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"$ref": "defs/types.json#/$defs/id"}, "a/b~": {"items": {"minimum": 0}}},
}


def test_a_misfit_names_pointer_rule_reason_and_place(run, files):
    files({
        "s/user.json": json.dumps(USER),
        "s/defs/types.json": '{"$defs": {"id": {"type": "integer"}}}',
        "a.json": '[{"id": 1},\n {"id": "x", "a/b~": [0, -1, 2,\n  -3]},\n {}]',
        "b.jsonl": '{"id": 1}\n{"é": "é", "id": null}\n',
    })  # fmt: skip
    outcome = run("a.json", "b.jsonl", "--schema", "s/user.json", "-o", "json")
    first, second, third = balanced(outcome.json)["failures"]
    found = [
        (v["pointer"], v["rule"], v["line"], v["column"], v["byte"]) for v in first["violations"]
    ]
    assert sorted(found) == [
        ("/a~1b~0/1", "minimum", 2, 26, 37),
        ("/a~1b~0/3", "minimum", 3, 3, 46),
        ("/id", "type", 2, 9, 20),
    ]
    assert (first["pointer"], first["line"], first["column"]) == found[0][:1] + found[0][2:4]
    assert (first["record"], first["kind"]) == (2, "schema")
    assert "(type)" in first["message"] or "(minimum)" in first["message"]
    assert "2 more" in first["message"]
    assert (second["record"], second["pointer"], second["line"], second["column"]) == (3, "", 4, 2)
    assert '"id" is a required property (required)' in second["message"]
    assert (third["file"], third["pointer"]) == ("b.jsonl", "/id")
    assert (third["line"], third["column"], third["byte"]) == (2, 18, 29)


def test_up_to_ten_violations_are_reported(run, files):
    files({"s.json": '{"items": {"type": "string"}}', "a.jsonl": json.dumps(list(range(50)))})
    [failure] = run("a.jsonl", "--schema", "s.json", "-o", "json").json["failures"]
    assert len(failure["violations"]) == 10
    assert "at least 10 more" in failure["message"] or "9 more" in failure["message"]


def test_formats_are_checked_if_asked_for(run, files):
    schema = {"properties": {"e": {"format": "email"}, "d": {"format": "date"}}}
    files({"s.json": json.dumps(schema), "a.json": '[{"e": "a@b.c", "d": "2020-02-30"}, {"e": 1}]'})
    assert run("a.json", "--schema", "s.json").code == 0
    outcome = run("a.json", "--schema", "s.json", "--check-formats", "-o", "json")
    [(record, kind, message)] = reasons(outcome)
    assert (record, kind) == (1, "schema")
    assert "date" in message
    assert run("a.json", "--check-formats").code == 2


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ('{"$ref": "https://example.com/a.json"}', "s.json:1:10: /$ref: refers to https://example"),
        ('{"$ref": "#/nosuch"}', "s.json:1:10"),
        ('{"properties":\n {"a": {"type": "strnig"}}}', "s.json:2:17: /properties/a/type"),
        ('{"pattern": "("}', "s.json:1:13: /pattern"),
        ('{"type": ', "s.json:1:10"),
        ('{"$schema": "http://json-schema.org/draft-03/schema#"}', "s.json:1:13: /$schema"),
        (None, "s.json"),
    ],
)
def test_a_bad_schema_is_a_usage_error_with_its_place(run, files, schema, words):
    files({} if schema is None else {"s.json": schema})
    outcome = run("nosuch.json", "--schema", "s.json")
    assert outcome.code == 2
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""


def test_places_are_those_of_the_record_once_it_has_changed(run, folder, files):
    files({"s.json": '{"properties": {"m": {"maximum": 2}}}', "l.jsonl": '{"n": 1}\n{"n": 3}'})
    outcome = run("l.jsonl", "--jq", "{m: .n}", "--schema", "s.json", "-o", "json")
    [failure] = outcome.json["failures"]
    assert (failure["pointer"], failure["record"], failure["line"]) == ("/m", 2, 2)
    assert failure["column"] == 1


# Together


def test_jq_comes_before_functions_and_these_before_the_schema(run, folder, files):
    files({"s.json": '{"properties": {"n": {"enum": [20, 40]}}}'})
    steps = ["--schema", "s.json", "--call", "fn.py:double", "--jq", ".n *= 10"]
    outcome = run("a.json", *steps, "--to", "o.jsonl", "-o", "json")
    assert rows((folder / "o.jsonl").read_text()) == [{"n": 20}, {"n": 40}]
    [(record, kind, message)] = reasons(outcome)
    assert (record, kind) == (3, "schema")
    assert "60" in message


def test_without_a_target_transforms_are_checks(run, folder, files):
    files({"s.json": '{"properties": {"n": {"maximum": 2}}}'})
    program = "if .n == 1 then empty elif .n == 2 then ., . else . end"
    outcome = run("a.json", "--jq", program, "--schema", "s.json", "-o", "json")
    assert outcome.json["records"] == {
        "read": 3, "passed": 1, "dropped": 1, "rejected": 1, "written": 0,
    }  # fmt: skip
    assert (outcome.json["status"], outcome.code) == ("partial", 1)
    assert "3 read: 1 passed, 1 dropped, 1 rejected" in run(
        "a.json", "--jq", program, "--schema", "s.json"
    ).stdout  # fmt: skip


def test_one_output_that_misfits_rejects_all_of_its_record(run, folder, files):
    files({"s.json": '{"properties": {"twin": {"not": {"const": 2}}}}'})
    for function in ("listed", "streamed"):
        call = ("--call", f"fn.py:{function}", "--schema", "s.json", "--to", "o.jsonl")
        outcome = run("a.json", *call, "-o", "json")
        assert [record for record, *_ in reasons(outcome)] == [2]
        found = rows((folder / "o.jsonl").read_text())
        assert [row.get("n", row.get("twin")) for row in found] == [1, 1, 3, 3]


def test_helpful_order_in_help(run):
    words = " ".join(run("--help-all").stdout.split())
    assert "in this order: --jq, --call, --schema:" in words
    assert "equal FIELDS, separated by commas, after all transforms" in words


STEPS = {
    "nothing": (),
    "jq": ("--jq", "."),
    "two jq": ("--jq", ".", "--jq", "."),
    "function": ("--call", "fn.py:as_is"),
    "async function": ("--call", "fn.py:as_is_async"),
    "schema": ("--schema", "s.json"),
}
EXACT = {
    "big": 2**70, "least": -(2**63), "sum": 0.1 + 0.2, "tiny": 5e-324, "huge": 1.7e308,
    "text": "\0\u2028é😀\x7f\\/", "empty": {}, "": [[], None, True],
}  # fmt: skip


BIG_ONES = ("big", "least")


@pytest.mark.parametrize(("step", "workers"), list(zip(STEPS, "010101", strict=True)))
def test_values_come_through_every_step_unharmed(run, files, step, workers):
    value = {name: item for name, item in EXACT.items() if "jq" not in step or name not in BIG_ONES}
    twice = '{"a": 1, "b": {"c": 1, "c": 2}, "a": 2}'
    deep, too_deep = '{"a":' * 1000 + "1" + "}" * 1000, "[" * 1025 + "]" * 1025
    folder = files({
        "fn.py": FUNCTIONS, "s.json": "true",
        "a.jsonl": "\n".join([json.dumps(value), twice, deep, '"\\ud800"', too_deep]),
        "d.json": f'{{"deep": {deep}}}',
    })  # fmt: skip
    steps = (*STEPS[step], "-w", workers)
    outcome = run("a.jsonl", "d.json", *steps, "--to", "o.jsonl", "-o", "json")
    assert [(f["record"], f["kind"]) for f in outcome.json["failures"]] == [
        (4, "invalid_json"), (5, "too_deep"),
    ]  # fmt: skip
    first, doubled, nested, named = (folder / "o.jsonl").read_text().split("\n")[:-1]
    assert json.loads(first) == value
    assert json.loads(doubled) == {"a": 2, "b": {"c": 2}}
    assert (nested, named) == (deep, f'{{"deep":{deep}}}')


def test_functions_may_nest_as_deep_as_files(run, files):
    files({"fn.py": FUNCTIONS, "a.json": "[999, 1000, 1023, 1024, 3000]"})
    outcome = run("a.json", "--call", "fn.py:nested", "--to", "o.jsonl", "-o", "json")
    assert [(record, kind) for record, kind, _ in reasons(outcome)] == [
        (4, "transform"), (5, "transform"),
    ]  # fmt: skip
    assert outcome.json["records"]["written"] == 3


def test_a_function_that_ends_its_process_costs_its_file_only(run, files):
    texts = {f"in/{n}.json": json.dumps({"n": n}) for n in range(6)}
    folder = files({"fn.py": FUNCTIONS, **texts})
    for options in ((), ("-w", "2", "-b", "4"), ("-w", "2", "-b", "1")):
        outcome = run("in", "--call", "fn.py:dies", *options, "--to", "o.jsonl", "-o", "json")
        [failure] = balanced(outcome.json)["failures"]
        assert (failure["file"], failure["kind"]) == ("in/2.json", "worker_crash")
        found = rows((folder / "o.jsonl").read_text())
        assert [row["n"] for row in found] == [0, 1, 3, 4, 5]
