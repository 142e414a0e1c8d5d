"""The corpora of the benchmark, the judgement of its figures, and the page of its results."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import corpora, documents, goals, orders, page, public, setting, shapes
from benchmarks.corpora import array_of, counted_lines, folder_of, lines_of
from benchmarks.documents import Document
from benchmarks.measure import CommandError, measure
from benchmarks.public import Package, PublicData
from benchmarks.races import Racer, expect, peer, race
from benchmarks.results import Results, worst_figures
from benchmarks.setting import Setting


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(setting, "DATA", str(tmp_path / "data"))
    monkeypatch.setattr(shapes, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(corpora, "PART_BYTES", 30_000)
    monkeypatch.setattr(shapes, "ORDER_FILES", 2)
    for module in (documents, orders):
        monkeypatch.setattr(module, "POOL", 60)
    return Setting("asyncbatch", 1, quick=True)


@pytest.fixture
def offline(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without npm
    return small


def test_every_shape_holds_as_many_elements_as_it_says(offline):
    for shape in shapes.shapes(offline):
        if shape.name == "30 MB":
            continue
        corpus = array_of(offline, shape.key, shape.texts, 200_000)
        content = Path(corpus.path).read_bytes()
        elements = json.loads(content)
        assert _elements_of_parts(corpus, content) == elements, shape.name
        assert (len(elements), len(content)) == (corpus.records, corpus.bytes), shape.name
        if shape.one_line:
            lines = lines_of(offline, shape.key, shape.texts, 200_000)
            text = Path(lines.path).read_bytes()
            assert text.endswith(b"\n")
            records = [json.loads(one) for one in text.split(b"\n")[:-1]]
            assert (len(records), len(text)) == (lines.records, lines.bytes), shape.name
            both = min(len(records), len(elements))
            assert records[:both] == elements[:both], shape.name


def _elements_of_parts(corpus, content):
    parts = json.loads(Path(corpus.parts).read_bytes())
    texts = [content[begin:end] for begin, end in parts]
    return [one for text in texts for one in json.loads(b"[%b]" % text)]


def test_shapes_are_the_same_for_the_same_seed(offline):
    for shape in shapes.shapes(offline):
        if shape.name != "30 MB":
            assert shape.texts() == shape.texts(), shape.name


def test_a_corpus_is_written_once(offline):
    first = counted_lines(offline, "once", lambda: [b"1\n", b"2\n"], 2)
    assert counted_lines(offline, "once", list, 2) == first
    assert Path(first.path).read_bytes() == b"1\n2\n"


def test_a_corpus_that_was_not_completed_is_written_again(offline):
    def fails():
        yield Document(b"[1]", 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder_of(offline, "broken", fails)
    corpus = folder_of(offline, "broken", lambda: [Document(b"[1, 2]", 2), Document(b"3", 1)])
    assert [Path(file).read_bytes() for file in corpus.all_files()] == [b"[1, 2]", b"3"]
    assert corpus[1:] == (2, 7, 3)


def test_without_npm_the_shapes_from_seeds_remain(offline, capsys):
    names = [shape.name for shape in shapes.shapes(offline)]
    assert "orders" in names
    assert not any("real" in name for name in names)
    assert "npm is not installed" in capsys.readouterr().out


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/data.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"[]"))
    (tmp_path / "some-borders-1.tgz").write_bytes(content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    for package, refused in (
        (Package("@some/borders", "1", digest), False),
        (Package("@some/borders", "1", "0" * 64), True),
    ):
        for name, value in (("DOCUMENTS", ()), ("COMPATIBILITY", package), ("BORDERS", package)):
            monkeypatch.setattr(public, name, value)
        if refused:
            with pytest.raises(CommandError, match="not the pinned one"):
                PublicData(str(tmp_path))
        else:
            PublicData(str(tmp_path))


def test_the_worst_shape_is_the_figure():
    results = Results()
    assert results.add(goals.ARRAY_DUCKDB, "orders", 2.5) == (">= 1.5x", "ok")
    assert results.add(goals.ARRAY_DUCKDB, "deep", 1.4999) == (">= 1.5x", "MISSED")
    results.add(goals.MEMORY, "orders", 310)
    results.add(goals.MEMORY, "deep", 120)
    worst = [(figure.row, figure.shape) for figure in worst_figures(results.figures)]
    assert worst == [(goals.ARRAY_DUCKDB, "deep"), (goals.MEMORY, "orders")]


def test_a_peer_that_fails_is_named_and_ours_fails_the_section(small):
    corpus = counted_lines(small, "two", lambda: [b"1\n", b"2\n"], 2)

    def racer(name, output, **more):
        return Racer(name, ["echo", output], expect(2), goals.ARRAY_DUCKDB, **more)

    right, wrong = racer("asyncbatch run", "2"), racer("asyncbatch stream", "3")
    peers = [
        racer("wrong peer", "3"),
        racer("slow wrong peer", "3", rounds=1),
        racer("missing peer", "2", needs="no-such-program"),
        racer("peer that prints no number", "two"),
    ]
    race(small, "two lines", corpus, [right, *peers, racer("good peer", "2")])
    out = small.results.left_out
    assert list(out) == [peer.name for peer in peers]
    assert out["wrong peer"] == "3 records, not 2 (two lines)"
    assert out["missing peer"] == "no-such-program is not installed (two lines)"
    judged = [figure.row for figure in small.results.figures]
    assert judged.count(goals.ARRAY_DUCKDB) == 2  # of the good peer, and of asyncbatch itself
    with pytest.raises(CommandError, match="3 records, not 2"):
        race(small, "two lines", corpus, [right, wrong])


def test_the_floor_tells_how_near_the_goals_are(small):
    corpus = counted_lines(small, "two", lambda: [b"1\n", b"2\n"], 2)
    seconds = {"asyncbatch run": 4.0, "peer": 6.0, "floor, 2 processes": 2.0}

    def racer(name, row):
        return Racer(name, ["echo", "2"], expect(2), row, clock=lambda _: seconds[name])

    rows = (None, goals.ARRAY_DUCKDB, goals.MIXED_FLOOR)
    racers = [racer(name, row) for name, row in zip(seconds, rows, strict=True)]
    race(small, "two lines", corpus, racers)
    found = [(one.row, one.value, one.floor) for one in small.results.figures[:2]]
    assert found == [(goals.ARRAY_DUCKDB, 1.5, 3.0), (goals.MIXED_FLOOR, 0.5, None)]


@pytest.mark.parametrize("processes", [1, 2, 7])
def test_the_floor_of_windows_counts_each_event_once(tmp_path, processes):
    path = tmp_path / "events.jsonl"
    expected: Counter[tuple[str, str]] = Counter()
    with path.open("w") as stream:
        for number in range(500):
            moment = f"2026-01-01T00:00:{number % 60:02}"
            kind = "ab"[number % 2]
            event = {"timestamp": f"{moment}.5Z", "event_type": kind, "value": 0.5}
            stream.write(json.dumps(event) + "\n")
            expected[f"2026-01-01T00:00:{number % 60 // 5 * 5:02}", kind] += 1
    target = str(tmp_path / "totals")
    output = measure(peer("floor_windows", str(processes), str(path), target)).output
    found = [json.loads(line) for line in output.splitlines()]
    assert {(one["window_start"], one["event_type"]): one["count"] for one in found} == expected
    assert sum(one["sum_value"] for one in found) == 250


def test_the_floors_do_the_work(small, tmp_path):
    pytest.importorskip("simdjson", reason="no wheel for this version of Python")
    texts = [b'{"id": %d, "name": "n%d"}' % (number, number) for number in range(5_000)]
    array = array_of(small, "array", lambda: texts, 200_000)
    lines = lines_of(small, "lines", lambda: texts, 200_000)
    for corpus in (array, lines):
        command = peer("floor_huge", "2", corpus.path, corpus.parts)
        assert int(measure(command).output) == corpus.records
    documents = [Document(b"[%b]" % b",".join(texts[at : at + 100]), 100) for at in (0, 200, 700)]
    folder = folder_of(small, "folder", lambda: documents)
    assert int(measure(peer("floor", "2", folder.path)).output) == 300
    decode = peer("floor_profile", "2", folder.path)
    assert int(measure(decode).output) == 300
    # arrays, records, and two values of each record
    assert int(measure([*decode, "--visit"]).output) == 3 + 300 + 600
    expected = [one for document in documents for one in json.loads(document.content)]
    target = tmp_path / "out.jsonl"
    measure(peer("floor_lines", "2", folder.path, str(target)))
    assert _by_id(map(json.loads, target.read_bytes().splitlines())) == expected
    measure(peer("floor_parquet", "2", folder.path, str(tmp_path / "out.parquet")))
    assert _by_id(pq.read_table(tmp_path / "out.parquet").to_pylist()) == expected


def _by_id(records):
    return sorted(records, key=lambda record: record["id"])


def test_the_page_has_a_column_for_each_run(tmp_path):
    paths = []
    for name, value in (("quiet", 1.62), ("busy", 1.2)):
        results = Results()
        results.add(goals.ARRAY_DUCKDB, "orders", 3)
        results.add(goals.ARRAY_DUCKDB, "deep", value, 2.1)
        results.add_table("Growth", ("", "1x"), [("files", "0.2"), ("a|b", "0.3")])
        paths.append(str(tmp_path / f"{name}.json"))
        machine = {"machine": "2 CPUs", "versions": ["jq-1.6"], "rounds": 5, "quick": False}
        results.write(paths[-1], machine)
    path = tmp_path / "performance.md"
    quiet, busy = "1.62x (deep, floor 2.1x)", "1.2x (deep, floor 2.1x), **missed**"
    path.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        page.main(paths, str(path))
        assert (
            path.read_text(encoding="utf-8")
            == f"""before
{page.BEGIN}
| work | compared with | goal | quiet | busy |
| --- | --- | --- | --- | --- |
| one array, counted | DuckDB read_json_objects | >= 1.5x | {quiet} | {busy} |

Every shape:

| work | compared with | each shape (quiet) |
| --- | --- | --- |
| one array, counted | DuckDB read_json_objects | orders 3x; deep 1.62x (floor 2.1x) |

Growth (quiet):

|  | 1x |
| --- | --- |
| files | 0.2 |
| a\\|b | 0.3 |

- quiet: 2 CPUs, medians of 5 rounds; jq-1.6
- busy: 2 CPUs, medians of 5 rounds; jq-1.6
{page.END}
after
"""
        )
