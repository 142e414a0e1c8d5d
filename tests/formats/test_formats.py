"""Each input format through the command: counts, positions and statuses."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable

import pytest

from tests.conftest import SAMPLE_DATA

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


def result(outcome):
    """Return the file event of a run over one file."""
    [event] = [event for event in outcome.events if event["event"] == "file"]
    return event


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("array.json", b"[1, 2, 3]", 3),
        ("object.json", b'{"a": [1, 2]}', 1),
        ("scalar.json", b"42", 1),
        ("empty-array.json", b"[]", 0),
        ("bom.json", b"\xef\xbb\xbf[1, 2]", 2),
        ("lines.jsonl", b"1\n[2, 3]\n\n  \r\n{}", 3),
        ("lines.ndjson", b"1\n2\n", 2),
        ("bom.jsonl", b"\xef\xbb\xbf1\n2\n", 2),
        ("nothing.jsonl", b"", 0),
        ("blank.jsonl", b"\n \n", 0),
        ("UPPER.JSONL", b"1\n2\n", 2),
    ],
)
def test_counts(run, files, name, content, records):
    files({name: content})
    event = result(run(name, "-o", "jsonl"))
    assert event["status"] == "success"
    assert event["records"] == records
    assert event["bytes"] == len(content)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize(("kind", "content"), [("json", b"[1, 2, 3]"), ("jsonl", b"1\n2\n3\n")])
def test_each_compression(run, files, suffix, kind, content):
    packed = COMPRESS[suffix](content)
    files({f"a.{kind}.{suffix}": packed})
    event = result(run(".", "-o", "jsonl"))
    assert (event["records"], event["bytes"]) == (3, len(packed))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_several_members_are_one_stream(run, files, suffix):
    compress = COMPRESS[suffix]
    files({f"a.jsonl.{suffix}": compress(b"1\n2\n3") + compress(b"4\n5\n")})
    assert result(run(".", "-o", "jsonl"))["records"] == 4  # 1, 2, 34, 5


def test_content_decides_where_the_name_lies(run, files):
    files(
        {
            "really-gzip.json": gzip.compress(b"[1, 2]"),
            "really-zstd.json.gz": zstd.compress(b"[1, 2, 3]"),
            "really-plain.json.xz": b"[1]",
        }
    )
    outcome = run(".", "-o", "jsonl")
    assert [event["records"] for event in outcome.events] == [2, 1, 3]
    assert outcome.code == 0


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kept", ["none", "magic", "half", "most"])
def test_a_truncated_archive_is_corrupt(run, files, suffix, kept):
    packed = COMPRESS[suffix](b"[" + b"1, " * 500 + b"2]")
    lengths = {"none": 0, "magic": 1, "half": len(packed) // 2, "most": len(packed) - 1}
    files({f"a.json.{suffix}": packed[: lengths[kept]]})
    event = result(run(".", "-o", "jsonl"))
    assert event["status"] == "failed"
    assert event["error"]["kind"] == "corrupt_archive"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_damaged_archive_is_corrupt(run, files, suffix):
    packed = bytearray(COMPRESS[suffix](bytes(range(32, 127)) * 40))
    packed[6:18] = b"\xff" * 12
    files({f"a.json.{suffix}": bytes(packed)})
    assert result(run(".", "-o", "jsonl"))["error"]["kind"] == "corrupt_archive"


def test_garbage_after_a_gzip_member_is_corrupt(run, files):
    files({"a.json.gz": gzip.compress(b"[1]") + b"junk"})
    assert result(run(".", "-o", "jsonl"))["error"]["kind"] == "corrupt_archive"


def test_places_count_in_the_decompressed_stream(run, files):
    text = b'{"a": 1}\n{"b": \xc3\xa9}\n'
    files({"a.jsonl": text, "b.jsonl.gz": gzip.compress(text)})
    failures = [event for event in run(".", "-o", "jsonl").events if event["event"] == "failure"]
    places = [(f["record"], f["line"], f["column"], f["byte"]) for f in failures]
    assert places == [(2, 2, 7, 15), (2, 2, 7, 15)]


def test_bad_lines_are_rejected_and_the_rest_goes_on(run, files):
    files({"a.jsonl": b'1\n{"x": }\n\n"\xff"\n[1,]\n' + b"[" * 1025 + b"\n2"})
    outcome = run("a.jsonl", "-o", "jsonl")
    *failures, file = outcome.events
    assert [(f["kind"], f["record"], f["line"], f["column"], f["byte"]) for f in failures] == [
        ("invalid_json", 2, 2, 7, 8),
        ("encoding", 3, 4, 2, 12),
        ("invalid_json", 4, 5, 4, 18),
        ("too_deep", 5, 6, 1025, 20 + 1024),
    ]
    assert file["status"] == "partial"
    assert (file["records"], file["rejected"]) == (6, 4)
    assert outcome.code == 1


def test_a_line_that_ends_early_ends_at_its_end(run, files):
    files({"a.jsonl": '1\n{"é": [\n2\n'})
    [failure] = run("a.jsonl", "-o", "json").json["failures"]
    assert (failure["line"], failure["column"], failure["byte"]) == (2, 8, 10)


def test_all_lines_bad_is_a_failed_file(run, files):
    files({"a.jsonl": "x\ny\n"})
    outcome = run("a.jsonl", "-o", "json").json
    assert outcome["status"] == "failed"
    assert outcome["files"]["failed"] == 1
    assert outcome["records"] == {"read": 2, "passed": 0, "dropped": 0, "rejected": 2, "written": 0}
    assert len(outcome["failures"]) == 2  # the file's error is its first rejection, not a third
    event = result(run("a.jsonl", "-o", "jsonl"))
    assert event["error"]["record"] == 1


def test_a_mark_inside_lines_is_an_error(run, files):
    files({"a.jsonl": b"1\n\xef\xbb\xbf2\n"})
    [failure] = run("a.jsonl", "-o", "json").json["failures"]
    assert (failure["kind"], failure["line"], failure["byte"]) == ("invalid_json", 2, 2)


def test_lines_longer_than_a_chunk(run, files):
    long = b'"' + b"x" * (3 << 20) + b'"'
    files({"a.jsonl": long + b"\n" + b"1\n" * 1000 + long})
    assert result(run("a.jsonl", "-o", "jsonl"))["records"] == 1002


def test_format_decides_against_the_name(run, files):
    files({"a.json": "1\n2\n", "b.jsonl": "[1,\n2]"})
    assert result(run("a.json", "-o", "jsonl", "--format", "jsonl"))["records"] == 2
    assert result(run("b.jsonl", "-o", "jsonl", "--format", "json"))["records"] == 2


@pytest.mark.parametrize(
    ("text", "records", "options"),
    [
        (b"[1, 2, 3]", 3, ()),
        (b'{\n "a": 1\n}\n', 1, ()),
        (b"[1, 2]\n\n", 2, ()),
        (b"\n\n[1, 2]\n[3]\n", 2, ()),
        (b'{"a": 1}\n{"b": 2}', 2, ()),
        (b"[1, 2]\n", 1, ("--format", "jsonl")),
        (gzip.compress(b"1\n2\n3\n", mtime=0), 3, ()),
        (b"[" + b"1,\n" * 400_000 + b"2]", 400_001, ()),
    ],
)
def test_standard_input(run, text, records, options):
    event = result(run("-", "-o", "jsonl", *options, stdin=text))
    assert (event["file"], event["status"], event["records"]) == ("-", "success", records)
    assert event["bytes"] == len(text)


def test_standard_input_reaches_worker_processes(run, files):
    files({f"data/{n}.json": "[1]" for n in range(300)})
    outcome = run("data", "-", "-w", "2", "-o", "json", stdin=b"1\n2\n").json
    assert outcome["files"]["succeeded"] == 301
    assert outcome["records"]["read"] == 302


def test_sample_data_is_as_its_readme_says(run):
    outcome = run(SAMPLE_DATA, "-o", "json", cwd=SAMPLE_DATA.parent)
    assert outcome.code == 1
    assert outcome.json["files"] | {"bytes": 0} == {
        "total": 33, "succeeded": 21, "partial": 1, "failed": 11, "skipped": 0, "bytes": 0,
    }  # fmt: skip
    kinds = {
        failure["file"].rpartition("/")[2]: failure["kind"] for failure in outcome.json["failures"]
    }
    readme = (SAMPLE_DATA / "README.md").read_text()
    for name, kind in kinds.items():
        [row] = [line for line in readme.splitlines() if line.startswith(f"| `{name}`")]
        assert kind in row or "partial" in row
