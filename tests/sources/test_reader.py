"""The read-ahead: the same bytes in the same order, with a limit of reads in flight."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from asyncbatch.core.batches import Batch
from asyncbatch.core.progress import Progress
from asyncbatch.sources import reader as reading
from asyncbatch.sources.reader import Reader, read_size
from asyncbatch.storage.local import Content, open_content


def batch(paths):
    return Batch(0, tuple(paths))


def whole(opened):
    if isinstance(opened, bytes):
        return opened
    with opened as content:
        return b"".join(content.chunks())


@pytest.fixture
def paths(tmp_path):
    """Files with sizes around the limits of the first read and of the read-ahead."""
    sizes = [0, 1, 65535, 65536, 65537, 70_000, 1 << 20, (1 << 20) + 1, 3 << 20] + [10] * 60
    made = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number:03}"
        path.write_bytes(bytes([number]) * size)
        made.append(str(path))
    return made


@pytest.mark.parametrize("in_flight", [None, 0, 1, 7, 64])
def test_everything_is_read_in_order(paths, in_flight):
    reader = Reader(in_flight=in_flight)
    contents = reader.contents(batch(paths), 1 << 40, 60, Progress())
    for (path, opened), expected in zip(contents, paths, strict=True):
        assert path == expected
        with open(path, "rb") as stream:
            assert whole(opened) == stream.read()


@pytest.mark.parametrize("in_flight", [0, 8])
def test_a_stretch_ends_at_its_bytes_and_keeps_what_was_opened(paths, in_flight):
    reader = Reader(in_flight=in_flight)
    taken = [
        path
        for path, opened in reader.contents(batch(paths), 1 << 20, 60, Progress())
        if whole(opened) is not None
    ]
    assert taken == paths[: len(taken)]
    assert 7 <= len(taken) < 7 + 8 + 1


def test_a_stretch_ends_after_its_time(paths):
    assert (
        1
        <= len(list(Reader().contents(batch(paths[10:]), 1 << 40, 0.0, Progress())))
        < len(paths[10:])
    )


def test_slow_storage_is_noticed_and_read_ahead(tmp_path, monkeypatch):
    """Slow opens (5 ms) soon run concurrently, and never more than the limit."""
    names = [str(tmp_path / f"{number:03}") for number in range(200)]
    for name in names:
        with open(name, "wb") as stream:
            stream.write(b"{}")
    lock, now, most = threading.Lock(), 0, 0

    def slow_open(*arguments):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return open_content(*arguments)

    monkeypatch.setattr(reading, "open_content", slow_open)
    contents = list(Reader().contents(batch(names), 1 << 40, 60, Progress()))
    assert [path for path, _ in contents] == names
    assert 8 < most <= reading.READS_IN_FLIGHT


def test_memory_in_flight_is_bounded_by_the_head(paths):
    big = paths[8]
    opened = open_content(big, None, reading.READ_AHEAD_BYTES)
    assert isinstance(opened, Content)
    with opened:
        assert len(opened.head) <= reading.READ_AHEAD_BYTES + 1
        assert read_size(opened) == len(opened.head)


def test_files_are_closed(paths):
    process = psutil.Process()
    before = process.num_fds()
    for _, opened in Reader(in_flight=8).contents(batch(paths), 1 << 40, 60, Progress()):
        whole(opened)
    assert process.num_fds() == before
