"""Decompression bombs are refused at the limit, in little memory."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import sys

import pytest

pytestmark = pytest.mark.xdist_group("bombs")  # which take long to make

GIB = 1024**3
MIB = 1024**2
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
MEMORY = 300_000_000


def pack(suffix, make, total, chunk=16 * MIB):
    """Return `total` bytes from `make` as a compressed stream, in little memory."""
    packers = {
        ".gz": _gzip,
        ".bz2": bz2.BZ2Compressor,
        ".xz": lambda: lzma.LZMACompressor(preset=0),
        ".zst": lambda: importlib.import_module(ZSTD).ZstdCompressor(),
    }
    packer = packers[suffix]()
    parts = [packer.compress(make(min(chunk, total - at))) for at in range(0, total, chunk)]
    return b"".join([*parts, packer.flush()])


def _gzip():
    import zlib

    return zlib.compressobj(1, zlib.DEFLATED, 31)


@pytest.fixture(scope="module")
def bombs():
    """Zeros in each format: some kilobytes that unpack to more than the memory limit."""
    sizes = {".gz": GIB, ".zst": GIB}
    one = {suffix: pack(suffix, bytes, size) for suffix, size in sizes.items()}
    # The slow formats in eight streams, one after the other.
    return one | {suffix: 8 * pack(suffix, bytes, GIB // 16) for suffix in (".bz2", ".xz")}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_bomb_goes_off_at_the_limit(run, tmp_path, bombs, name, suffix):
    assert len(bombs[suffix]) < 6 * MIB
    (tmp_path / (name + suffix)).write_bytes(bombs[suffix])
    outcome = run(name + suffix, "-o", "json", "--max-decompressed-size", "100MB")
    [failure] = outcome.json["failures"]
    assert failure["kind"] == "too_large"
    assert "unpacks to more than 100,000,000 bytes (--max-decompressed-size)" in failure["message"]
    assert outcome.json["files"]["failed"] == 1
    assert outcome.json["peak_memory_bytes"] < MEMORY


def test_without_the_option_a_bomb_is_what_it_is(run, tmp_path, bombs):
    (tmp_path / "a.json.gz").write_bytes(bombs[".gz"])
    (tmp_path / "b.jsonl.gz").write_bytes(bombs[".gz"])
    outcome = run(".", "-o", "json")
    kinds = {one["file"]: (one["kind"], one["byte"]) for one in outcome.json["failures"]}
    assert kinds == {"./a.json.gz": ("invalid_json", 0), "./b.jsonl.gz": ("too_large", None)}
    assert outcome.json["peak_memory_bytes"] < 2 * MEMORY


@pytest.mark.parametrize(
    ("before", "behind", "records"),
    [(b"[", b"]", 0), (b"[1", b"]", 1), (b"[1]", b"", 1), (b"", b"[1]", 1)],
)
def test_white_space_is_no_record_however_much(run, tmp_path, before, behind, records):
    blank = pack(".gz", lambda size: b" " * size, 150 * MIB)
    text = gzip.compress(before) + blank + gzip.compress(behind)
    (tmp_path / "a.json.gz").write_bytes(text)
    report = run("a.json.gz", "--jq", ".", "--to", "out.jsonl", "-o", "json").json
    assert report["failures"] == []
    assert report["records"]["read"] == records


def test_bombs_within_documents_go_off_too(run, tmp_path):
    for name, start in (("a", b'{"a": '), ("b", b'["'), ("c", b'[1, 2, {"a": [')):
        blank = pack(".gz", lambda size: b" " * size, 64 * MIB)
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(start) + blank)
    report = run(".", "-o", "json", "--max-decompressed-size", "40MiB").json
    assert [one["kind"] for one in report["failures"]] == ["too_large"] * 3


def test_a_limit_is_a_size(run):
    outcome = run(".", "--max-decompressed-size", "much")
    assert outcome.code == 2
    assert "is not a size" in outcome.stderr
