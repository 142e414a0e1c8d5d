"""Live sources: real files that are rotated and truncated, growing folders, pipes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncbatch.errors import SourceError, UsageError
from asyncbatch.sources.base import CHUNK_BYTES, LiveChunk
from asyncbatch.sources.live.file import digest
from asyncbatch.sources.live.folder import FolderReader
from asyncbatch.sources.live.follower import LogFollower
from asyncbatch.sources.live.merge import MergedSources
from asyncbatch.sources.live.open import LiveOptions, open_path
from asyncbatch.sources.live.pipe import PipeSource
from asyncbatch.sources.live.seen import ContentMark, FoundFile, SeenContent, SeenFiles, SeenState
from asyncbatch.sources.live.simulator import SimulatedSource, Simulator
from asyncbatch.sources.selection import Selection
from tests.commands import PATIENCE, CommandProcess, environment, run_command
from tests.processes import wait_until


def counted(noun, errors):
    """Return the numbers of events of a kind that are not 0, in a summary and progress lines."""
    return re.findall(rf"[1-9][\d,]* {noun}", errors)


class Log:
    """A log file with its writer and its rotation. `written` is the expected data."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "app.log")
        self.written = b""

    def name(self, number):
        return f"{self.path}.{number}"

    def write(self, data):
        with open(self.path, "ab") as file:
            file.write(data)
        self.written += data

    def shift(self):
        """Rename each rotated file to the next number."""
        for number in range(40, 0, -1):
            for suffix in ("", ".gz"):
                with suppress(FileNotFoundError):
                    os.rename(self.name(number) + suffix, self.name(number + 1) + suffix)

    def rename(self):
        self.shift()
        with suppress(FileNotFoundError):
            os.rename(self.path, self.name(1))

    def copy_and_cut(self):
        if os.path.exists(self.path):
            self.shift()
            shutil.copyfile(self.path, self.name(1))
            os.truncate(self.path, 0)

    def compress(self, number):
        """Compress a rotated file and keep its time of the last write, as logrotate does."""
        with suppress(FileNotFoundError):
            status = os.stat(self.name(number))
            self.compress_anew(number)
            os.utime(self.name(number) + ".gz", ns=(status.st_atime_ns, status.st_mtime_ns))

    def compress_anew(self, number):
        """Compress a rotated file, which then has the time of now."""
        with suppress(FileNotFoundError):
            _compress_into(self.name(number), self.name(number) + ".gz")

    def compress_and_rename(self):
        """Rotate by writing a compressed copy, and removing the file at the path."""
        self.shift()
        with suppress(FileNotFoundError):
            _compress_into(self.path, self.name(1) + ".gz")


class DatedLog(Log):
    """A log whose rotated files have the time of the rotation in their names."""

    def __init__(self, folder):
        super().__init__(folder)
        self.rotations = 0

    def name(self, number):
        return f"{self.path.removesuffix('.log')}-20260101T{self.rotations - number:06}.log"

    def shift(self):
        self.rotations += 1


def _compress_into(path, packed):
    content = Path(path).read_bytes()
    Path(packed).write_bytes(gzip.compress(content))
    later = time.time() + 5  # surely later than the last write to any file
    os.utime(packed, (later, later))
    os.remove(path)


class Clock:
    """The time of a module, which a test can have move on."""

    def __init__(self):
        self.passed = 0.0

    def monotonic(self):
        return time.monotonic() + self.passed

    def time(self):
        return time.time()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("follower", "folder", "completion"):
        monkeypatch.setattr(f"asyncbatch.sources.live.{module}.time", clock)
    return clock


def follow(log, **more):
    """Return a follower that finishes rotated files at once."""
    return LogFollower(log.path, **{"settle": 0.0, **more})


def drained(reader):
    """Return all chunks that are available."""
    return list(iter(reader.next, None))


def data_of(chunks):
    return b"".join(chunk.data for chunk in chunks)


def losses_of(chunks):
    return [chunk.loss.message for chunk in chunks if chunk.loss]


@pytest.fixture
def log(tmp_path):
    return Log(str(tmp_path))


# --- a followed file


def test_a_file_that_comes_and_grows(log):
    follower = follow(log)
    assert follower.next() is None
    log.write(b"1\n2")
    first, *more = drained(follower)
    assert (first.data, first.begins_file, first.ends_file, more) == (b"1\n2", True, False, [])
    log.write(b"2\n3\n")
    second, *more = drained(follower)
    assert (second.data, second.begins_file, second.ends_file, more) == (
        b"2\n3\n",
        False,
        False,
        [],
    )
    assert follower.next() is None


def test_rotation_ends_a_line_and_begins_a_file(log):
    follower = follow(log)
    log.write(b"1\nhalf")
    drained(follower)
    log.rename()
    assert drained(follower) == []
    log.write(b"2\n")
    ends, begins = drained(follower)
    assert (ends.data, ends.ends_file, begins.data, begins.begins_file) == (b"", True, b"2\n", True)


def test_what_is_written_to_the_old_file_still_comes_first(log, clock):
    follower = follow(log, settle=3600)
    log.write(b"1\n")
    drained(follower)
    with open(log.path, "ab", buffering=0) as old:
        log.rename()
        old.write(b"2\n")
        assert data_of(drained(follower)) == b"2\n"
        log.write(b"4\n")
        assert drained(follower) == []  # the old file may get more
        old.write(b"3\n")
        assert data_of(drained(follower)) == b"3\n"
    assert drained(follower) == []
    clock.passed += 3600
    assert data_of(drained(follower)) == b"4\n"


def test_what_comes_too_late_for_an_old_file_is_told(log):
    follower = follow(log)
    log.write(b"1\n")
    with open(log.path, "ab", buffering=0) as old:
        log.rename()
        log.write(b"2\n")
        assert data_of(drained(follower)) == b"1\n2\n"
        old.write(b"lost\n")
        (loss,) = losses_of(drained(follower))
    assert "5 bytes were written to the rotated file" in loss
    assert drained(follower) == []


@pytest.mark.parametrize("compressed", [False, True])
def test_several_rotations_between_two_looks(log, compressed):
    follower = follow(log)
    log.write(b"1\n")
    drained(follower)
    for number in (2, 3, 4):
        log.write(b"%d\n" % number)
        log.rename()
        if compressed:
            log.compress(2)
    log.write(b"5\n")
    chunks = drained(follower)
    assert data_of(chunks) == b"2\n3\n4\n5\n"
    assert [chunk.ends_file for chunk in chunks].count(True) == 3
    assert not losses_of(chunks)


def test_rotated_files_that_are_called_by_their_date(log):
    follower = follow(log)
    log.write(b"1\n")
    drained(follower)
    for day, line in enumerate((b"2\n", b"3\n"), start=1):
        log.write(line)
        os.rename(log.path, f"{log.path}-2026010{day}")
    Path(f"{log.path}-errors").write_bytes(b"another log\n")
    log.write(b"4\n")
    assert data_of(drained(follower)) == b"2\n3\n4\n"


def test_what_was_there_before_is_not_read_for_what_came_after(log):
    log.write(b"old\n")
    log.rename()
    log.write(b"1\n")
    follower = follow(log)
    assert data_of(drained(follower)) == b"1\n"
    os.remove(log.path)
    log.write(b"2\n")
    assert data_of(drained(follower)) == b"2\n"


def test_copied_and_cut(log):
    follower = follow(log)
    log.write(b"1\n" * 10)
    drained(follower)
    log.write(b"2\n")
    log.copy_and_cut()
    log.write(b"3\n" * 50)
    chunks = drained(follower)
    assert data_of(chunks) == b"2\n" + b"3\n" * 50
    assert not losses_of(chunks)


def test_copied_and_cut_again_before_the_copy_is_read(log):
    follower = follow(log)
    log.write(b"".join(b"%07d\n" % number for number in range(CHUNK_BYTES // 4)))
    first = follower.next()
    log.copy_and_cut()
    log.write(b"a\n")
    second = follower.next()
    log.copy_and_cut()
    log.write(b"b\n")
    assert first.data + second.data + data_of(drained(follower)) == log.written


@pytest.mark.parametrize("after", [b"", b"3\n", b"3\n" * 50])
def test_cut_without_a_copy_is_told(log, after):
    follower = follow(log)
    log.write(b"1\n" * 10)
    drained(follower)
    os.truncate(log.path, 0)
    log.write(after)
    chunks = drained(follower)
    (loss,) = losses_of(chunks)
    assert "truncated after 20 bytes" in loss
    assert "unread data is lost, if any" in loss
    assert chunks[0].ends_file
    assert data_of(chunks) == after
    assert drained(follower) == []


def test_cut_before_it_was_read_says_how_much_is_lost_at_least(log):
    log.write(b"1234567\n" * 2 * CHUNK_BYTES)
    follower = follow(log)
    read = len(follower.next().data)
    while follower.has_more:
        read += len(follower.next().data)
    os.truncate(log.path, 0)
    (loss,) = losses_of(drained(follower))
    assert f"at least {len(log.written) - read:,} bytes" in loss


def test_a_hole_that_a_writer_leaves_is_passed_over(log):
    with open(log.path, "wb", buffering=0) as file:  # a writer that does not append
        file.write(b"1\n" * 5000)
        follower = follow(log)
        drained(follower)
        os.truncate(log.path, 0)
        file.write(b"2\n")
        chunks = drained(follower)
    assert data_of(chunks) == b"2\n"
    assert len(losses_of(chunks)) == 1


@pytest.mark.parametrize("size", [1000, 4096, 3_000_000])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_log_that_begins_with_a_hole(log, size, is_sparse):
    def begin():
        with open(log.path, "wb") as file:
            if is_sparse:
                file.truncate(size)
            else:
                file.write(bytes(size))

    begin()
    follower = follow(log)
    assert drained(follower) == []
    with open(log.path, "ab") as file:
        file.write(b"1\n")
    chunks = drained(follower)
    assert data_of(chunks) == b"1\n"
    with open(log.path, "ab") as file:
        file.write(b"2\n" * CHUNK_BYTES)
    again = follow(log)
    again.start_at(json.loads(json.dumps(chunks[-1].position)))
    assert data_of(drained(again)) == b"2\n" * CHUNK_BYTES
    log.compress_and_rename()  # the copy begins with the hole, too
    begin()
    with open(log.path, "ab") as file:
        file.write(b"3\n")
    again = follow(log)
    again.start_at(json.loads(json.dumps(chunks[-1].position)))
    chunks = drained(again)
    assert data_of(chunks) == b"2\n" * CHUNK_BYTES + b"3\n"
    assert not losses_of(chunks)


def test_removed_and_there_again(log):
    follower = follow(log)
    log.write(b"1\n")
    drained(follower)
    os.remove(log.path)
    assert drained(follower) == []
    log.write(b"1\n")
    assert data_of(drained(follower)) == b"1\n"


def test_from_the_end_is_from_the_last_whole_line(log):
    log.write(b"x" * 10_000 + b"\n1\n2")
    follower = follow(log, from_end=True)
    log.write(b"2\n")
    assert data_of(drained(follower)) == b"22\n"
    other = Log(log.path + ".d")
    os.mkdir(log.path + ".d")
    follower = follow(other, from_end=True)
    other.write(b"1\n")
    assert data_of(drained(follower)) == b"1\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_once(log):
    follower = follow(log)
    log.write(b"1\n")
    os.chmod(log.path, 0)
    (loss,) = losses_of(drained(follower))
    assert "Permission denied" in loss
    assert drained(follower) == []
    os.chmod(log.path, 0o600)
    assert data_of(drained(follower)) == b"1\n"


def test_a_place_that_is_gone_is_an_error(log):
    follower = follow(log)
    log.write(b"1\n")
    position = drained(follower)[-1].position
    os.truncate(log.path, 0)
    log.write(b"other\n")
    with pytest.raises(UsageError, match="neither in this file nor in a rotated file"):
        follow(log).start_at(position)
    with pytest.raises(UsageError, match="not a position in a file"):
        follow(log).start_at({"offset": "x"})


class Following:
    """Random steps on a log and its follower."""

    def __init__(self, log):
        self.log = log
        self.follower = follow(self.log)
        self.start = self.follower.position
        self.found: list[LiveChunk] = []
        self.line = 0

    def write(self, number):
        lines = range(self.line, self.line + number)
        self.log.write(b"".join(b"%09d %s\n" % (line, b"x" * 40) for line in lines))
        self.line += number

    def half(self, number):
        # Each beginning is unique: a follower cannot detect a truncated file with the same bytes.
        self.log.write((b"%09d half a line" % self.line)[: max(10, number)])
        self.line += 1

    def read(self, number):
        self.found += list(islice(iter(self.follower.next, None), number))

    def restart(self, _):
        position = self.found[-1].position if self.found else self.start
        self.follower.close()
        self.follower = follow(self.log)
        self.follower.start_at(json.loads(json.dumps(position)))

    def rename(self, _):
        self.log.rename()

    def cut(self, _):
        self.log.copy_and_cut()

    def compress(self, number):
        self.log.compress(1 + number % 4)

    def compress_anew(self, number):
        self.log.compress_anew(1 + number % 4)

    def compress_and_rename(self, _):
        self.log.compress_and_rename()


_STEPS = st.tuples(
    st.sampled_from(
        [
            "write",
            "half",
            "read",
            "restart",
            "rename",
            "cut",
            "compress",
            "compress_anew",
            "compress_and_rename",
        ]
    ),
    st.integers(0, 3000) | st.integers(1, 4),
)


@settings(max_examples=200)
@given(st.lists(_STEPS, max_size=30), st.sampled_from([Log, DatedLog]))
@example(
    [("write", 1), ("read", 1), ("cut", 0), ("compress_anew", 0), ("compress_and_rename", 0)], Log
)
def test_nothing_is_lost_or_read_twice_whatever_happens(steps, kind):
    with tempfile.TemporaryDirectory() as folder:
        following = Following(kind(folder))
        for step, number in steps:
            getattr(following, step)(number)
        if not os.path.exists(following.log.path):
            following.log.write(b"end\n")
        following.read(None)
        following.follower.close()
        assert not losses_of(following.found)
        assert data_of(following.found) == following.log.written


# --- a folder


@pytest.fixture
def put(tmp_path):
    """Return a function that writes a file of a folder, with a time `age` seconds ago."""

    def _put(name, data, age=60.0):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        moment = time.time() - age
        os.utime(path, (moment, moment))
        return path

    return _put


def reader_of(folder, **more):
    return FolderReader(str(folder), Selection(), **{"follow": True, "settle": 0.0, **more})


def looked(reader):
    reader.rescan()
    return drained(reader)


def test_files_of_a_folder_in_the_order_in_which_they_were_written(put, tmp_path):
    put("a.jsonl", b"3\n", 10)
    put("b.ndjson", b"1\n", 30)
    put("c.json.gz", gzip.compress(b"2\n" * 100_000), 20)
    put("below/d.jsonl", b"0\nno end", 40)
    put(".hidden.jsonl", b"x\n")
    put("e.jsonl.tmp", b"x\n")
    put("f.txt", b"x\n")
    chunks = drained(reader_of(tmp_path, follow=False))
    assert data_of(chunks) == b"0\nno end1\n" + b"2\n" * 100_000 + b"3\n"
    ends = [os.path.basename(chunk.file) for chunk in chunks if chunk.ends_file]
    assert ends == ["d.jsonl", "b.ndjson", "c.json.gz", "a.jsonl"]
    assert [chunk.begins_file for chunk in chunks].count(True) == 4


def test_a_folder_is_taken_up_after_any_chunk(put, tmp_path):
    for number in range(4):
        put(f"{number}.jsonl", b"%d\n" % number * CHUNK_BYTES, 50 - number)
    put("4.jsonl.gz", gzip.compress(b"4\n" * CHUNK_BYTES), 1)
    chunks = drained(reader_of(tmp_path, follow=False))
    for number, chunk in enumerate(chunks):
        reader = reader_of(tmp_path, follow=False)
        reader.start_at(json.loads(json.dumps(chunk.position)))
        assert data_of(drained(reader)) == data_of(chunks[number + 1 :])


def test_a_file_that_is_half_read_is_found_under_another_name(put, tmp_path):
    path = put("a.jsonl", b"1\n" * CHUNK_BYTES)
    first, *rest = drained(reader_of(tmp_path))
    path.rename(tmp_path / "b.jsonl")
    reader = reader_of(tmp_path)
    reader.start_at(first.position)
    assert data_of(drained(reader)) == data_of(rest)
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(UsageError, match="was removed, replaced or truncated"):
        reader_of(tmp_path).start_at(first.position)


def test_each_file_is_read_once_whatever_becomes_of_it(put, tmp_path):
    reader = reader_of(tmp_path)
    one = put("one.jsonl", b"1\n")
    assert data_of(looked(reader)) == b"1\n"
    one.rename(tmp_path / "again.jsonl")
    assert looked(reader) == []
    os.utime(tmp_path / "again.jsonl")
    assert looked(reader) == []
    put("two.jsonl", b"2\n", 3600)  # older than the first one
    assert data_of(looked(reader)) == b"2\n"
    (tmp_path / "two.jsonl").write_bytes(b"3\n4\n")  # another file in its place
    assert data_of(looked(reader)) == b"3\n4\n"


class Watching:
    """Random steps on the files of a folder and its reader."""

    def __init__(self, folder, *, from_end=False):
        self.folder = Path(folder)
        self.reader = reader_of(folder, from_end=from_end)
        self.expected: list[bytes] = []
        self.found: list[bytes] = []
        self.unread: set[str] = set()
        self.count = 0

    def new(self, size):
        self.put(b"%d\n" % self.count + b"x" * size + b"\n")

    def twins(self, size):
        content = b"twins %d\n" % self.count + b"x" * size + b"\n"
        for _ in range(2):
            self.put(content)

    def similar(self, size):
        """Write a file that differs from others of its size only in the middle."""
        self.put(b"x" * size * 10 + b"%09d" % self.count + b"x" * size * 10 + b"\n")

    def put(self, content):
        self.count += 1
        path = self.folder / f"{self.count}.jsonl"
        path.write_bytes(content)
        moment = 1_000_000_000 + self.count
        os.utime(path, (moment, moment))
        self.expected.append(content)
        self.unread.add(path.name)

    def look(self, _):
        chunks = looked(self.reader)
        assert not losses_of(chunks)
        content = b""
        for chunk in chunks:
            content += chunk.data
            if chunk.ends_file:
                self.found.append(content)
                content = b""
        self.unread.clear()
        # A file that comes now is newer than this scan: clocks of file systems are coarse.
        now = max((one.stat().st_ctime_ns for one in self.folder.iterdir()), default=0)
        other = self.folder / "clock.txt"
        other.touch()
        while other.stat().st_ctime_ns <= now:
            other.chmod(0o600)

    def restart(self, _):
        position = json.loads(json.dumps(self.reader.position))
        self.reader.close()
        self.reader = reader_of(self.folder)
        self.reader.start_at(position)

    def read_one(self, number):
        """Return a file that was read."""
        names = sorted(
            one.name for one in self.folder.glob("*.jsonl*") if one.name not in self.unread
        )
        return self.folder / names[number % len(names)] if names else None

    def compress(self, number):
        path = self.read_one(number)
        if path is not None and path.suffix != ".gz":
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()

    def copy(self, number):
        path = self.read_one(number)
        if path is not None:
            self.count += 1
            shutil.copyfile(path, self.folder / f"c{self.count}-{path.name}")

    def move(self, number):
        """Move a file as between file systems: copied with its time, then removed."""
        path = self.read_one(number)
        if path is not None:
            self.count += 1
            shutil.copy2(path, self.folder / f"m{self.count}-{path.name}")
            path.unlink()


_FOLDER_STEPS = st.tuples(
    st.sampled_from(
        ["new", "twins", "similar", "look", "restart", "compress", "copy", "move", "compress"]
    ),
    st.integers(0, 10) | st.integers(0, 10_000),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_FOLDER_STEPS, max_size=30), st.booleans())
@example([("compress", 4), ("new", 3)], False)  # where inodes are used again: one with its size
def test_each_content_of_a_folder_is_read_once_whatever_becomes_of_it(steps, from_end):
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            path = Path(folder, f"old{number}.jsonl")
            path.write_bytes(b"old %d\n" % number)
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        watching = Watching(folder, from_end=from_end)
        if not from_end:
            watching.expected = [b"old 0\n", b"old 1\n", b"old 2\n"]
        watching.look(0)
        for step, number in steps:
            getattr(watching, step)(number)
        watching.look(0)
        watching.reader.close()
        assert watching.found == watching.expected


def test_the_content_of_files_read_long_ago_is_remembered(put, tmp_path, monkeypatch):
    monkeypatch.setattr("asyncbatch.sources.live.seen._MIN_REMEMBERED", 5)
    monkeypatch.setattr("asyncbatch.sources.live.seen._MAX_CONTENTS", 20)
    watching = Watching(str(tmp_path))
    for turn in range(12):
        for number in range(4):
            watching.new(turn + number)
        watching.look(0)
    for number in range(24, 49):
        path = tmp_path / f"{number}.jsonl"
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        watching.restart(0)
        watching.look(0)
    assert watching.found == watching.expected
    assert len(watching.reader.position["seen"]["contents"]) <= 20


def test_a_position_of_the_version_before_is_taken_up(put, tmp_path):
    put("a.jsonl", b"1\n" * CHUNK_BYTES)
    put("b.jsonl", b"2\n", 30)
    for number in (1, 3):  # in the first file, and after it
        reader = reader_of(tmp_path)
        for _ in range(number):
            position = reader.next().position
        rest = data_of(drained(reader))
        position["seen"]["files"] = [list(one)[:5] for one in position["seen"]["files"]]
        for name in ("checksum", "scanned"):
            position.pop(name, None)
        del position["seen"]["contents"]
        again = reader_of(tmp_path)
        again.start_at(json.loads(json.dumps(position)))
        assert data_of(looked(again)) == rest
        again.close()


def test_a_file_that_grows_after_it_was_read_is_told(put, tmp_path):
    reader = reader_of(tmp_path)
    path = put("a.jsonl", b"1\n")
    looked(reader)
    with path.open("ab") as file:
        file.write(b"more\n")
    chunks = looked(reader)
    assert ["5 bytes were added" in loss for loss in losses_of(chunks)] == [True]
    assert data_of(chunks) == b""
    assert looked(reader) == []


def test_a_file_that_is_being_written_is_waited_for(put, tmp_path, clock):
    reader = reader_of(tmp_path, settle=7200)
    future = -86_400  # so that the file is not old, however long this test takes
    put("a.jsonl", b"1\n", future)
    assert looked(reader) == []
    assert reader.is_waiting
    clock.passed += 7000
    put("a.jsonl", b"1\n2\n", future)
    assert looked(reader) == []
    clock.passed += 7000
    assert looked(reader) == []
    clock.passed += 7000
    assert data_of(looked(reader)) == b"1\n2\n"


def test_a_file_that_is_renamed_is_complete(put, tmp_path):
    reader = reader_of(tmp_path, settle=3600)
    path = tmp_path / "a.jsonl.part"
    path.write_bytes(b"1\n")
    while path.stat().st_ctime_ns <= path.stat().st_mtime_ns:  # file systems have coarse clocks
        path.chmod(0o600)
    path.rename(tmp_path / "a.jsonl")
    assert data_of(looked(reader)) == b"1\n"


def test_what_of_a_folder_cannot_be_read_is_told(put, tmp_path):
    whole = gzip.compress(os.urandom(500_000))
    put("a.jsonl.gz", whole[:-1000], 30)
    put("b.jsonl", b"1\n", 20)
    chunks = drained(reader_of(tmp_path, follow=False))
    (loss,) = [chunk.loss for chunk in chunks if chunk.loss]
    assert (loss.kind, os.path.basename(loss.file)) == ("corrupt_archive", "a.jsonl.gz")
    assert chunks[-1].file.endswith("b.jsonl")


def test_from_the_end_of_a_folder(put, tmp_path):
    for number in range(5):
        put(f"{number}.jsonl", b"old\n", number * 10)
    reader = reader_of(tmp_path, from_end=True)
    assert drained(reader) == []
    (tmp_path / "3.jsonl").rename(tmp_path / "x.jsonl")
    put("new.jsonl", b"new\n", 100)
    assert data_of(looked(reader)) == b"new\n"


def test_what_is_kept_of_many_files_is_bounded(put, tmp_path, monkeypatch):
    monkeypatch.setattr("asyncbatch.sources.live.seen._MIN_REMEMBERED", 10)
    monkeypatch.setattr("asyncbatch.sources.live.folder._FILES_AT_ONCE", 7)
    reader = reader_of(tmp_path)
    expected = []
    for turn in range(8):
        for number in range(10):
            name = f"{turn}-{number}.jsonl"
            put(name, name.encode() + b"\n", 1000 - 10 * turn - number)
            expected.append(name)
        found = looked(reader)
        assert data_of(found).decode().split() == expected[-10:]
        position = reader.position
        assert len(position["seen"]["files"]) <= 40
        again = reader_of(tmp_path)
        again.start_at(json.loads(json.dumps(position)))
        assert looked(again) == []
        again.close()
    late = put("late.jsonl", b"late\n", 5000)  # older than all of these
    assert data_of(looked(reader)) == b"late\n"
    again.start_at(json.loads(json.dumps(position)))
    assert late.exists()


# --- live sources


async def read_all(source):
    chunks = []
    while not source.is_over:
        chunk = await source.read(None)
        assert chunk is not None
        chunks.append(chunk)
    source.close()
    return chunks


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "events.jsonl.zst"])
async def test_a_file_is_taken_up_after_any_chunk(tmp_path, name):
    data = os.urandom(2_000_000)
    path = tmp_path / name
    if name.endswith(".zst"):
        zstd = pytest.importorskip("backports.zstd")
        path.write_bytes(zstd.compress(data))
    else:
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    chunks = await read_all(PipeSource(str(path)))
    assert data_of(chunks) == data
    for number, chunk in enumerate(chunks):
        source = PipeSource(str(path))
        source.start_at(json.loads(json.dumps(chunk.position)))
        assert data_of(await read_all(source)) == data_of(chunks[number + 1 :])


@pytest.mark.parametrize("change", ["cut", "replaced", "begins otherwise"])
async def test_a_file_that_is_not_what_it_was_is_not_gone_on_with(tmp_path, change):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"1\n" * CHUNK_BYTES)
    first, *_ = await read_all(PipeSource(str(path)))
    kept = path.read_bytes()
    path.write_bytes(
        {
            "cut": kept[:1000],
            "replaced": kept[: CHUNK_BYTES - 10] + b"2\n" * CHUNK_BYTES,
            "begins otherwise": b"2\n" + kept[2:],
        }[change]
    )
    with pytest.raises(UsageError, match=r"after its first 131,072 bytes were read"):
        PipeSource(str(path)).start_at(first.position)
    path.write_bytes(kept + b"more\n")
    PipeSource(str(path)).start_at(first.position)


async def test_a_damaged_archive_is_an_error(tmp_path):
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(500_000))[:-1000])
    with pytest.raises(SourceError, match=r"cannot read .*events\.jsonl\.gz: gzip"):
        await read_all(PipeSource(str(path)))


async def test_simulated_events_are_taken_up_where_they_were():
    def simulated(start=0):
        return SimulatedSource("simulate:", Simulator(start, rate=1000, disorder=5000))

    source = simulated(time.time_ns() // 1000 - 60_000_000)
    chunks = [await source.read(0) for _ in range(4)]
    again = simulated()
    again.start_at(chunks[1].position)
    rest = b""
    while len(rest) < len(data_of(chunks[2:])):
        rest += (await again.read(None)).data
    assert rest.startswith(data_of(chunks[2:]))


async def taken(merged, timeout=0.0):
    found = await merged.read(timeout)
    assert found is not None
    return found[0].name


class Scripted:
    """A source that returns the given chunks, and counts its reads."""

    def __init__(self, name, *given):
        self.name, self.is_over = name, False
        self.given, self.reads = list(given), 0
        self._wakeup = asyncio.Event()

    async def read(self, timeout):
        self.reads += 1
        if not self.given:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), timeout)
            self._wakeup.clear()
        if not self.given:
            return None
        chunk = LiveChunk(self.name, *self.given.pop(0))
        self.is_over = chunk.ends_file
        return chunk

    def give(self, *chunk):
        self.given.append(chunk)
        self._wakeup.set()

    def wake(self):
        self._wakeup.set()

    def close(self):
        pass


async def test_the_source_that_is_least_far_is_read_first():
    one, two = Scripted("one"), Scripted("two")
    merged = MergedSources([one, two])
    far = {"one": 0, "two": 50}
    merged.use_event_times(far.__getitem__)
    one.given = [(b"%d" % number,) for number in range(10)]
    two.given = [(b"%d" % number,) for number in range(10)]
    order = []
    for _ in range(12):
        order.append(await taken(merged))
        far[order[-1]] += 10
    assert order == ["one"] * 5 + ["two", "one"] * 3 + ["two"]
    await merged.close()


async def test_those_whose_time_nobody_knows_have_their_turn():
    sources = [Scripted(name, *[(b"x",)] * 9) for name in "abc"]
    merged = MergedSources(sources)
    merged.use_event_times({"a": None, "b": 10, "c": 20}.get)
    order = [await taken(merged) for _ in range(6)]
    assert order == ["a", "b", "a", "b", "a", "b"]
    await merged.close()


async def test_silent_and_finished_sources_are_not_asked_again_and_again():
    busy, silent, over = Scripted("busy"), Scripted("silent"), Scripted("over", (b"", True))
    merged = MergedSources([silent, busy, over])
    busy.given = [(b"x",)] * 100
    found = [await merged.read(0) for _ in range(101)]
    assert None not in found
    assert await merged.read(0) is None
    assert (silent.reads, over.reads) == (2, 1)  # the second read still waits
    reading = asyncio.create_task(taken(merged, None))
    await asyncio.sleep(0)
    silent.give(b"y")
    assert await reading == "silent"
    waiting = asyncio.create_task(merged.read(None))
    await asyncio.sleep(0)
    merged.wake()
    assert await waiting is None
    await merged.close()


async def test_nobody_is_asked_while_nothing_happens(log, monkeypatch):
    source = open_path(log.path, LiveOptions(follow=True))
    log.write(b"1\n")
    first = await source.read(None)
    assert first is not None
    assert first.data == b"1\n"
    read = []
    pread = os.pread

    def counted(*args):
        read.append(args)
        return pread(*args)

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr("asyncbatch.sources.live.follower.POLL_SECONDS", 0.01)
    for _ in range(20):
        assert await source.read(None) is None
    assert len(read) <= 1  # one read finds the end of the file
    log.write(b"2\n")
    while (chunk := await source.read(None)) is None:
        pass
    assert chunk.data == b"2\n"
    source.close()


# --- the command


def event(second, kind="a"):
    return json.dumps({"t": f"2026-01-01T00:00:{second:09.6f}Z", "k": kind}).encode() + b"\n"


class Running:
    """`asyncbatch stream` with its output in files."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = CommandProcess(
                ["stream", *arguments, "--time", "t", "--by", "k"],
                stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=folder, env=environment(),
            )  # fmt: skip

    @property
    def windows(self):
        """The start (in seconds), the key and the count of each window."""
        lines = (self.folder / "out").read_bytes().splitlines()
        return [
            (int(one["window_start"][17:19]), one["key"]["k"], one["aggregates"]["count"])
            for one in map(json.loads, lines)
        ]

    @property
    def errors(self):
        return (self.folder / "err").read_text()

    def until(self, count):
        """Wait until there are `count` windows, and return them."""
        wait_until(lambda: len(self.windows) >= count, running=self.process)
        return self.windows

    def until_told(self, words):
        """Wait for these words on standard error."""
        wait_until(lambda: words in self.errors, running=self.process)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def running(tmp_path):
    started = []

    def _running(*arguments):
        started.append(Running(tmp_path, *map(str, arguments)))
        return started[-1]

    yield _running
    for one in started:
        one.process.kill()
        one.process.wait()
        if one.process.stdin is not None:
            one.process.stdin.close()


@pytest.fixture
def stream(tmp_path):
    """Return a function that runs `asyncbatch stream` to its end."""

    def _stream(*arguments, stdin=b""):
        finished = run_command(
            "stream", *map(str, arguments), "--time", "t", "--by", "k", cwd=tmp_path, stdin=stdin
        )
        windows = [json.loads(line) for line in finished.stdout.splitlines()]
        found = [
            (int(one["window_start"][17:19]), one["key"]["k"], one["aggregates"]["count"])
            for one in windows
        ]
        return finished.returncode, found, finished.stderr.decode()

    return _stream


def test_a_log_is_followed_through_rotation_until_ctrl_c(running, log):
    command = running("app.log", "--follow")
    log.write(event(1) + event(6)[:20])
    log.write(event(6)[20:])
    assert command.until(1) == [(0, "a", 1)]
    log.rename()
    log.write(event(7) + event(11))
    command.until(2)
    log.copy_and_cut()
    log.write(event(12) + event(16))
    command.until(3)
    os.truncate(log.path, 0)
    log.write(event(17) + event(21))
    command.until(4)
    assert command.stop() == 0
    assert command.windows == [(0, "a", 1), (5, "a", 2), (10, "a", 2), (15, "a", 2), (20, "a", 1)]
    assert "lost  app.log: read_error: the file was truncated after" in command.errors
    assert "Stopped after 8 events" in command.errors


@pytest.mark.parametrize("kind", [Log, DatedLog])
@pytest.mark.parametrize("rotation", ["compress_and_rename", "rename"])
def test_a_rotated_file_that_is_compressed_with_a_new_time_is_read_once(
    running, tmp_path, kind, rotation
):
    log = kind(str(tmp_path))
    options = ("app.log", "--follow", "--checkpoint", "state", "--to", "windows.jsonl")
    count = 0  # ten events a second, 50 in a window

    def write():
        nonlocal count
        times = (1_767_225_600 + (count + more) / 10 for more in range(60))
        log.write(b"".join(b'{"t": %.1f, "k": "a"}\n' % time for time in times))
        count += 60

    def rotate():
        getattr(log, rotation)()
        log.compress_anew(1)

    def counts(*, partial=False):
        lines = (tmp_path / "windows.jsonl").read_bytes().splitlines()
        windows = [one for one in map(json.loads, lines) if partial or "partial" not in one]
        return [one["aggregates"]["count"] for one in windows]

    for turn in range(4):
        command = running(*options)
        write()
        wait_until((tmp_path / "windows.jsonl").exists, running=command.process)
        wait_until(lambda: len(counts()) == (count - 1) // 50, running=command.process)
        rotate()
        write()
        if turn % 2:
            rotate()
            wait_until(lambda: len(counts()) == (count - 1) // 50, running=command.process)
        assert command.stop() == 0
        rotate()
    command = running(*options)
    write()
    wait_until(lambda: len(counts()) == (count - 1) // 50, running=command.process)
    assert command.stop() == 0
    assert not counted("late", command.errors)
    assert counts(partial=True) == [50] * (count // 50) + [count % 50] * bool(count % 50)


def test_a_file_that_is_not_there_yet_is_waited_for_and_told(running, log):
    command = running("app.log", "--follow")
    command.until_told("Waiting for app.log: there is no such file yet")
    log.write(event(1) + event(6))
    assert command.until(1) == [(0, "a", 1)]
    assert command.stop() == 0
    command = running("app.log", "--follow", "--max-events", "2")
    assert command.process.wait(timeout=PATIENCE) == 0
    assert "Waiting" not in command.errors


def test_a_folder_is_read_while_files_arrive(running, put, tmp_path):
    (tmp_path / "in").mkdir()
    put("in/1.jsonl", event(1))
    command = running("in", "--follow")
    for number in range(2, 5):
        path = put(f"in/{number}.tmp", event(5 * number))
        path.rename(path.with_suffix(".jsonl"))
        command.until(number - 1)
    assert command.stop(signal.SIGTERM) == 0
    assert command.windows == [(0, "a", 1), (10, "a", 1), (15, "a", 1), (20, "a", 1)]


def test_files_of_a_folder_that_are_compressed_moved_or_copied_are_read_once(
    running, put, tmp_path
):
    (tmp_path / "in").mkdir()
    options = ("in", "--follow", "--checkpoint", "state", "--to", "windows.jsonl")
    lines = tmp_path / "windows.jsonl"

    def put_next(second):
        put(f"in/{second}.tmp", event(second)).rename(tmp_path / "in" / f"{second}.jsonl")

    def counts(*, partial=True):
        windows = map(json.loads, lines.read_bytes().splitlines())
        return [one["aggregates"]["count"] for one in windows if partial or not one.get("partial")]

    def change(name):
        path = tmp_path / "in" / name
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        shutil.copyfile(path, tmp_path / "in" / f"copy-{name}")
        path.unlink()

    put_next(1)
    for second in (6, 11, 16):
        command = running(*options)
        put_next(second)

        def is_read(windows=second // 5):
            return lines.exists() and len(counts(partial=False)) == windows

        wait_until(is_read, running=command.process)
        change(f"{second}.jsonl")  # while the stream runs
        put_next(second + 2)
        change("1.jsonl" if second == 6 else f"{second - 3}.jsonl")
        put_next(second + 3)
        assert command.stop() == 0
    command = running(*options)
    put_next(21)
    wait_until(lambda: len(counts(partial=False)) == 4, running=command.process)
    assert command.stop() == 0
    assert counts() == [1, 3, 3, 3, 1]
    assert "11 in windows" in command.errors
    assert not counted("late", command.errors)


def test_a_copy_is_known_after_its_file_is_removed_and_the_inode_used_again(tmp_path):
    """The copy is found in a later run, which has only the saved state."""
    texts = {name: event(number) * 9 for number, name in enumerate(("a.jsonl", "b.jsonl"))}

    def found(name, inode, text):
        (tmp_path / name).write_bytes(text)
        status = (tmp_path / name).stat()
        return FoundFile((status.st_mtime_ns, name), inode, len(text), status.st_ctime_ns)

    seen = SeenFiles()
    for name, text in texts.items():  # one after the other, with the same inode
        content = ContentMark(digest(text), len(text), zlib.crc32(text))
        seen.add(found(name, 7, text), len(text), digest(text), SeenContent(content, 1))
    later = SeenFiles(msgspec.convert(msgspec.to_builtins(seen.position), SeenState))
    for name, text in texts.items():
        for copy, data in ((f"copy-{name}", text), (f"{name}.gz", gzip.compress(text))):
            path = tmp_path / copy
            path.write_bytes(data)
            file = found(copy, path.stat().st_ino, data)
            known = later.copied_content(file, str(path))
            assert known is not None
            assert known.length == len(text)


def test_nothing_is_read_while_nothing_happens(running, log):
    command = running("app.log", "--follow")
    log.write(event(1) + event(6))
    command.until(1)
    process = psutil.Process(command.process.pid)
    before, began = process.io_counters().read_count, time.monotonic()
    time.sleep(2.5)
    reads = process.io_counters().read_count - before
    assert reads < 24 * (time.monotonic() - began)  # a second, of which a slow machine has more
    assert command.stop() == 0


def test_several_files_are_one_stream(stream, tmp_path):
    for name in "abc":
        lines = b"".join(event(second / 100, name) for second in range(3000))
        (tmp_path / f"{name}.jsonl").write_bytes(lines)
    code, windows, errors = stream("a.jsonl", "b.jsonl", "c.jsonl", "--workers", "0")
    assert code == 0
    assert windows == [(start, name, 500) for start in range(0, 30, 5) for name in "abc"]
    assert "9,000 in windows\n" in errors


def test_several_sources_wait_for_each_other(running, log):
    command = running("app.log", "-", "--follow")
    log.write(event(1) + event(12))
    command.process.stdin.write(event(6, "b"))
    command.process.stdin.flush()
    assert command.until(1) == [(0, "a", 1)]
    command.process.stdin.close()  # the stream does not wait for a source that has ended
    assert command.until(2) == [(0, "a", 1), (5, "b", 1)]
    assert command.stop() == 0


def test_a_source_that_is_idle_is_not_waited_for(running, log):
    command = running("app.log", "-", "--follow", "--idle-timeout", "300ms")
    log.write(event(1))

    def goes_on():
        log.write(event(6))
        return command.windows

    wait_until(goes_on)  # while the log has events, the pipe alone is idle
    assert command.windows == [(0, "a", 1)]
    assert command.stop() == 0


@pytest.mark.parametrize("kind", ["rename", "copy_and_cut", "folder"])
def test_killed_again_and_again_it_has_the_windows_of_one_that_was_not(
    running, stream, put, tmp_path, kind
):
    log = Log(str(tmp_path))
    source = "in" if kind == "folder" else "app.log"
    (tmp_path / "in").mkdir()
    options = (
        source, "--follow", "--checkpoint", "state", "--checkpoint-every", "50ms",
        "--to", "windows.jsonl",
    )  # fmt: skip
    second, written = 0, b""

    def write():
        nonlocal second, written
        times = (1_767_225_600 + second + part / 500 for part in range(500))
        lines = b"".join(b'{"t": %.3f, "k": "a"}\n' % time for time in times)
        written, second = written + lines, second + 1
        if kind == "folder":
            put("in/next.tmp", lines).rename(tmp_path / "in" / f"{second}.jsonl")
        else:
            log.write(lines)

    def rotate():
        if kind != "folder":
            getattr(log, kind)()
            log.compress(3)

    # A stream that is killed before its first checkpoint begins again, at the newest log.
    out, saved = tmp_path / "windows.jsonl", tmp_path / "state"
    for turn in range(5):
        command = running(*options)
        before = out.stat().st_size if out.exists() else 0
        write()
        rotations = 5 * (turn % 2)
        while not (saved.exists() and out.exists() and out.stat().st_size > before):
            assert command.process.poll() is None, command.errors
            write()
            time.sleep(0.1)  # or there would be gigabytes of events until it begins
            if rotations:
                rotate()
                rotations -= 1
        command.stop(signal.SIGKILL)
        for _ in range(turn):
            rotate()
            write()
    write()
    errors = ""
    while f"{second * 500:,} since the stream began" not in errors:
        command = running(*options)
        command.until_told("Resuming after")
        time.sleep(1)  # In which it reads. If that was not all, the loop goes on.
        assert command.stop() == 0
        errors = command.errors
    (tmp_path / "all.jsonl").write_bytes(written)
    assert stream("all.jsonl", "--to", "expected.jsonl")[0] == 0
    found, expected = (
        [
            (one["window_start"], one["aggregates"])
            for one in map(json.loads, (tmp_path / name).read_bytes().splitlines())
        ]
        for name in ("windows.jsonl", "expected.jsonl")
    )
    assert found == expected


@pytest.mark.parametrize("kind", ["file", "gzip", "pipe", "folder", "followed"])
def test_a_hole_at_the_beginning_is_no_event(stream, tmp_path, kind):
    size = 200 * 1024 * 1024  # more than a line may have
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "app.jsonl"
    lines = event(1) + event(2) + event(7)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(lines)
    source, more, stdin = [path], [], b""
    match kind:
        case "gzip":
            packed = tmp_path / "app.jsonl.gz"
            packed.write_bytes(gzip.compress(path.read_bytes(), 1))
            source = [packed]
        case "pipe":
            source, stdin = ["-"], event(1) + bytes(size) + event(2) + event(7)
        case "folder":
            source = ["in"]
        case "followed":
            more = ["--follow", "--max-events", "3"]
    code, windows, errors = stream(*source, *more, stdin=stdin)
    assert (code, windows) == (0, [(0, "a", 2), (5, "a", 1)]), errors
    assert not counted("rejected", errors)


def test_a_pipe_that_closes(stream):
    assert stream("-", stdin=event(1) + event(2)[:-1])[:2] == (0, [(0, "a", 2)])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-", "-"), "- is given twice"),
        (("-", "--follow"), "--follow works only with files and folders"),
        (("a.jsonl", "--from-end"), "--from-end needs --follow"),
        (("a.jsonl", "--pattern", "*.log"), "--pattern works only with folders"),
        (("a.jsonl.gz", "--follow"), "it is compressed"),
        (("no/such/file", "--follow"), "there is no folder"),
        (("empty",), "no JSON files in empty"),
        (("empty", "--pattern", "*.log"), "no *.log in empty"),
        (("/dev/null", "--follow"), "cannot follow /dev/null"),
    ],
)
def test_sources_that_cannot_be_meant(stream, tmp_path, arguments, why):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jsonl").write_bytes(b"")
    code, windows, errors = stream(*arguments)
    assert (code, windows) == (2, [])
    assert why in errors


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("in/e.jsonl", "./in/e.jsonl"), "in/e.jsonl and ./in/e.jsonl are the same file"),
        (("in/e.jsonl", "link.jsonl"), "in/e.jsonl and link.jsonl are the same file"),
        (("in/e.jsonl", "-"), "in/e.jsonl and - are the same file"),
        (("new.jsonl", "in/../new.jsonl", "--follow"), "are the same file"),
        (("in", "in/"), "in and in/ are the same file"),
        (("in", "in/e.jsonl"), "in/e.jsonl is in in, a source too"),
        (("in/more", "in"), "in/more is in in, a source too"),
        (("in", "in/e.log"), None),  # the folder leaves it out
        (("in", "in/more/e.jsonl", "--exclude", "more"), None),
    ],
)
def test_a_file_is_read_by_one_source(tmp_path, arguments, why):
    (tmp_path / "in/more").mkdir(parents=True)
    for name in ("in/e.jsonl", "in/e.log", "in/more/e.jsonl"):
        (tmp_path / name).write_bytes(event(1))
    (tmp_path / "link.jsonl").symlink_to("in/e.jsonl")
    options = ("--time", "t", "-q")
    with (tmp_path / "in/e.jsonl").open("rb") as events:
        process = CommandProcess(
            ["stream", *arguments, *options], cwd=tmp_path, env=environment(),
            stdin=events, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = process.communicate()
    assert process.returncode == (0 if why is None else 2), errors
    assert why is None or f"{why}: name each source once" in " ".join(errors.decode().split())


def test_without_the_library_it_says_what_to_install(tmp_path, log):
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n")
    finished = run_command(
        "stream",
        "app.log",
        "--follow",
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert finished.returncode == 2
    assert b"pip install 'asyncbatch[watch]'" in finished.stderr
