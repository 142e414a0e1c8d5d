"""Atomic files: many bytes, which the kernel is asked to write to the disk early."""

from __future__ import annotations

import os
import threading

from asyncbatch.storage.atomic import AtomicFile

PIECES = [bytes([number]) * (3 * 1024 * 1024 + number) for number in range(8)]


def write(path: str) -> None:
    file = AtomicFile(path)
    file.open()
    for piece in PIECES:
        file.write(piece)
    assert file.size == sum(map(len, PIECES))
    file.commit()


def test_many_bytes_become_a_whole_file(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"before")
    write(str(path))
    assert path.read_bytes() == b"".join(PIECES)
    assert os.listdir(tmp_path) == ["out"]


def test_many_bytes_go_to_a_device_and_a_pipe(tmp_path):
    write(os.devnull)
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write(str(path))
    reader.join()
    assert found == [b"".join(PIECES)]
