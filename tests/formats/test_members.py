"""Compressed files of several members: each byte counts, or the file fails."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.formats.compression import compression_by_name, detect_compression
from asyncbatch.formats.members import CorruptArchiveError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHECKSUM = {int(zstd.CompressionParameter.checksum_flag): 1}
PACK = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstd.compress(data, options=CHECKSUM),
}
FIRST, SECOND = b'{"id":1}\n', b'{"id":2}\n{"id":3}\n'
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"\x28\0\0\0"


def unpack(packed, size=1 << 20):
    """Return the content of a stream, and whether it was damaged."""
    form = detect_compression(packed[:16])
    assert form is not None
    found = io.BytesIO()
    try:
        found.writelines(form.chunks(io.BytesIO(packed), size))
    except CorruptArchiveError:
        return found.getvalue(), True
    return found.getvalue(), False


@pytest.mark.parametrize("suffix", PACK)
def test_each_flipped_bit_of_two_members_fails_the_file_or_changes_nothing(run, files, suffix):
    packed = PACK[suffix](FIRST) + PACK[suffix](SECOND)
    count = len(packed) * 8
    flipped = {}
    for bit in range(count):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        flipped[f"in/{bit:05}.jsonl.{suffix}"] = bytes(damaged)
    folder = files(flipped)
    outcome = run("in", "--to", "out/", "--to-compression", "none", "-o", "jsonl")
    events = [event for event in outcome.events if event["event"] == "file"]
    assert len(events) == count
    passed = [event["file"] for event in events if event["status"] == "success"]
    for name in passed:
        out = folder / "out" / name.removesuffix(f".{suffix}")
        assert out.read_bytes() == FIRST + SECOND, name
    # A few bits have no meaning, for instance those of the time in gzip's headers.
    assert len(passed) < count / 4
    assert all(event["status"] in ("success", "failed") for event in events)


@pytest.mark.parametrize("suffix", PACK)
def test_our_own_outputs_show_each_flipped_bit(suffix):
    form = compression_by_name(f"a.{suffix}")
    assert form is not None
    packed = form.compress(FIRST * 20)
    for bit in range(len(packed) * 8):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        if detect_compression(bytes(damaged[:16])) is not None:
            content, is_damaged = unpack(bytes(damaged))
            assert is_damaged or content == FIRST * 20, bit


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_members_are_what_each_library_says_of_them_alone(data):
    suffix = data.draw(st.sampled_from(list(PACK)))
    parts = data.draw(st.lists(st.binary(max_size=3000), min_size=1, max_size=6))
    size = data.draw(st.sampled_from([1, 100, 4096, 1 << 20]))
    packed = b"".join(map(PACK[suffix], parts))
    assert unpack(packed, size) == (b"".join(parts), False)
    cut = data.draw(st.integers(6, len(packed)))
    content, is_damaged = unpack(packed[:cut], size)
    assert b"".join(parts).startswith(content)
    ends = {len(b"".join(map(PACK[suffix], parts[:n]))) for n in range(1, len(parts) + 1)}
    assert is_damaged == (cut not in ends)


def test_a_member_may_begin_at_each_byte_of_a_read():
    filler = random.Random(1).randbytes(64 * 1024 - 200)
    for size in range(180):
        parts = [filler + b"x" * size, FIRST, SECOND]
        packed = b"".join(map(PACK["gz"], parts))
        assert unpack(packed) == (b"".join(parts), False)


PADDED = {
    "xz between": ("xz", b"", b"\0" * 4, True),
    "xz end": ("xz", b"\0" * 8, b"", True),
    "xz odd end": ("xz", b"\0" * 3, b"", False),
    "xz odd between": ("xz", b"", b"\0" * 6, False),
    "xz many": ("xz", b"\0" * 400_000, b"\0" * 400_000, True),
    "gzip end": ("gz", b"\0" * 7, b"", True),
    "gzip between": ("gz", b"", b"\0" * 70_000, True),
    "gzip text": ("gz", b"\n", b"", False),
    "gzip text between": ("gz", b"", b"junk", False),
    "bzip2 text": ("bz2", b"\n", b"", False),
    "bzip2 zeros": ("bz2", b"\0\0", b"", False),
    "bzip2 between": ("bz2", b"", b"!", False),
    "zstd skippable first": ("zst", b"", b"", True),
    "zstd skippable": ("zst", SKIPPABLE, SKIPPABLE * 2, True),
    "zstd cut skippable": ("zst", SKIPPABLE[:9], b"", False),
    "zstd text": ("zst", b"\n", b"", False),
    "zstd zeros": ("zst", b"\0" * 8, b"", False),
}


def padded(case):
    """Return a name and two members, with bytes before (zstd), between and after them."""
    suffix, after, between, is_valid = PADDED[case]
    before = SKIPPABLE if case == "zstd skippable first" else b""
    packed = before + PACK[suffix](FIRST) + between + PACK[suffix](SECOND) + after
    return f"a.jsonl.{suffix}", packed, is_valid


WAYS = {
    "count": (),
    "jq": ("--jq", "."),
    "call": ("--call", "code.py:keep"),
    "workers": ("--schema", "any.schema", "-w", "1"),
    "huge": ("--jq", ".", "--max-memory", "260M"),
}


@pytest.mark.parametrize("way", WAYS)
def test_padding_is_accepted_and_other_bytes_are_refused(run, files, way):
    cases = {case: padded(case) for case in PADDED}
    folder = files(
        {f"in/{case}/{name}": packed for case, (name, packed, _) in cases.items()}
        | {"code.py": "async def keep(record):\n    return record\n", "any.schema": "{}"}
    )
    target = () if way == "count" else ("--to", "all.jsonl")
    outcome = run("in", *WAYS[way], *target, "-o", "jsonl")
    events = [event for event in outcome.events if event["event"] == "file"]
    found = {event["file"].split("/")[1]: event for event in events}
    for case, (_, _, is_valid) in cases.items():
        event = found[case]
        assert event["status"] == ("success" if is_valid else "failed"), (case, event)
        if is_valid:
            assert event["records"] == 3
        else:
            assert event["error"]["kind"] == "corrupt_archive"
    if target:
        ids = [json.loads(line)["id"] for line in (folder / "all.jsonl").read_text().splitlines()]
        assert ids == [1, 2, 3] * sum(case[3] for case in PADDED.values())


@pytest.mark.parametrize("case", ["xz between", "bzip2 between", "gzip text", "zstd skippable"])
def test_standard_input_is_read_to_its_last_member(run, case):
    _, packed, is_valid = padded(case)
    report = run("-", "-o", "json", stdin=packed).json
    assert report["records"]["read"] == (3 if is_valid else 0)
    assert [one["kind"] for one in report["failures"]] == ["corrupt_archive"] * (not is_valid)


@pytest.mark.parametrize("case", ["xz between", "bzip2 between", "gzip text", "zstd skippable"])
def test_a_stream_reads_to_the_last_member(stream, files, case):
    name, packed, is_valid = padded(case)
    files({name: packed})
    code, windows, errors = stream(
        name, "--time", "id", "--window", "tumbling:1h", "--agg", "n=count"
    )
    assert (code == 0) == is_valid
    if is_valid:
        assert [window["aggregates"]["n"] for window in windows] == [3]
    else:
        assert name in errors


@pytest.mark.parametrize("case", ["xz between", "bzip2 between"])
def test_an_object_is_read_to_its_last_member(run, s3, case):
    name, packed, is_valid = padded(case)
    bucket = f"members-{case.replace(' ', '-')}"
    s3.bucket(bucket, {name: packed})
    report = run(f"s3://{bucket}", "-o", "json", env=s3.environment).json
    assert report["records"]["read"] == (3 if is_valid else 0)
    assert [one["kind"] for one in report["failures"]] == ["corrupt_archive"] * (not is_valid)


@pytest.mark.parametrize("suffix", ["bz2", "xz"])
def test_a_flipped_bit_in_a_large_output_is_not_its_end(run, files, suffix):
    """Some members of our own output: the damage is at the beginning of a later one."""
    text = b"".join(b'{"id":%d,"name":"person %d"}\n' % (n, n % 97) for n in range(20_000))
    members = [PACK[suffix](text[at : at + 100_000]) for at in range(0, len(text), 100_000)]
    members[3] = members[3][:12] + bytes([members[3][12] ^ 1]) + members[3][13:]
    files({f"own.jsonl.{suffix}": b"".join(members)})
    outcome = run(f"own.jsonl.{suffix}", "--jq", ".", "--to", "out.jsonl", "-o", "json")
    assert outcome.code == 1
    assert [one["kind"] for one in outcome.json["failures"]] == ["corrupt_archive"]


def test_the_message_names_the_bytes_after_a_member(run, files):
    packed = gzip.compress(b"[1]", mtime=0)
    files({"a.json.gz": packed + b"ga"})
    [failure] = run("a.json.gz", "-o", "json").json["failures"]
    assert failure["message"] == (
        "gzip: a member is complete, but the bytes after it are no gzip data: "
        f"b'ga' at byte {len(packed)} of the file"
    )


def test_a_damaged_beginning_is_one_failure(run, files):
    packed = PACK["zst"](FIRST * 1000)
    files({"a.jsonl.zst": b"!" + packed[1:], "plain.jsonl.zst": FIRST, "b.jsonl.gz": b"\x1f"})
    outcome = run(".", "-o", "json").json
    kinds = {one["file"]: one["kind"] for one in outcome["failures"]}
    assert kinds == {"./a.jsonl.zst": "corrupt_archive", "./b.jsonl.gz": "corrupt_archive"}
    assert outcome["records"]["read"] == 1


@pytest.mark.skipif(shutil.which("pzstd") is None, reason="needs pzstd (the zstd package)")
def test_files_of_pzstd(run, files):
    folder = files({"t.jsonl": b"".join(b'{"n":%d}\n' % n for n in range(20_000))})
    subprocess.run(["pzstd", "-q", "t.jsonl", "-o", "p.jsonl.zst"], cwd=folder, check=True)
    report = run("p.jsonl.zst", "--jq", ".n", "--to", "out.jsonl", "-o", "json").json
    assert report["failures"] == []
    assert (folder / "out.jsonl").read_text().split() == [str(n) for n in range(20_000)]


def long_window(log):
    """Return lines in a zstd frame with a window of 2**log bytes, and the lines."""
    text = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
    return packer.compress(text) + packer.flush(), text


@pytest.mark.parametrize("log", [27, 28, 31])
def test_long_windows_of_zstd(run, files, log):
    packed, text = long_window(log)
    folder = files({"a.jsonl.zst": packed, "b.jsonl": FIRST})
    outcome = run("a.jsonl.zst", "b.jsonl", "-o", "json").json
    if log > 27:
        [failure] = outcome["failures"]
        assert failure["kind"] == "too_large"
        assert f"needs a window of {2**log:,} bytes" in failure["message"]
        assert "(--max-window)" in failure["message"]
    else:
        assert outcome["failures"] == []
    outcome = run("a.jsonl.zst", "--max-window", "2GiB", "--jq", ".", "--to", "out.jsonl")
    assert outcome.code == 0
    assert (folder / "out.jsonl").read_bytes() == text


def test_a_stream_reads_long_windows(stream, files):
    packed, text = long_window(31)
    files({"a.jsonl.zst": packed})
    code, windows, _ = stream(
        "a.jsonl.zst", "--time", "n", "--time-unit", "s", "--window", "tumbling:1h", "--agg",
        "c=count",
    )  # fmt: skip
    assert code == 0
    assert sum(one["aggregates"]["c"] for one in windows) == text.count(b"\n")


def test_the_window_is_within_the_memory_limit(run, files):
    packed, _ = long_window(27)
    files({"a.jsonl.zst": packed})
    [failure] = run("a.jsonl.zst", "--max-memory", "130M", "-o", "json").json["failures"]
    assert failure["kind"] == "too_large"
    assert run("a.jsonl.zst", "--max-memory", "130M", "--max-window", "128MiB").code == 0


def test_the_window_in_a_pipeline_file(etl, files):
    packed, text = long_window(28)
    folder = files(
        {
            "in/a.jsonl.zst": packed,
            "p.toml": 'name = "p"\n[[source]]\ntype = "files"\npaths = ["in"]\n'
            'max_window = "2GiB"\n[sink]\nto = "out.jsonl"\n',
        }
    )
    done = etl("p.toml")
    assert done.returncode == 0, done.stderr
    assert (folder / "out.jsonl").read_bytes() == text


def test_the_dictionary_of_xz_is_a_window_too(run, files):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 256 * 1024 * 1024}]
    # The header alone names the dictionary: the decoder allocates it before any content.
    files({"a.jsonl.xz": lzma.compress(FIRST, filters=filters)})
    [failure] = run("a.jsonl.xz", "-o", "json").json["failures"]
    assert (failure["kind"], "--max-window" in failure["message"]) == ("too_large", True)
    assert run("a.jsonl.xz", "--max-window", "256MiB").code == 0
