"""JSON Lines in a stream: each line a record, in the memory of a few chunks."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.codec.fault import Fault
from asyncbatch.codec.place import BOM, Place, locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncbatch.codec.judge import Judge

_BLANK = b" \t\r\n"


class BadLine(NamedTuple):
    """A line that is no JSON text: its record number (from 1), its fault and where that is."""

    record: int
    fault: Fault
    place: Place


def judge_lines(chunks: Iterable[bytes], judge: Judge) -> Iterator[tuple[int, list[BadLine]]]:
    """Yield, for each chunk, how many records ended in it and which of them are bad.

    Lines end at LF; blank ones are no records. A byte order mark may stand before the first.
    """
    record, line_number, offset = 0, 1, 0
    for block in _whole_lines(chunks):
        seen_before, bad = record, []
        marked = BOM in block
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()  # what stands after the last LF is no line
        for line in lines:
            if line:
                verdict = judge(line)
                if marked and offset and line.startswith(BOM):
                    verdict = Fault("invalid_json", 0, "a byte order mark inside the file")
                if not isinstance(verdict, Fault):
                    record += 1
                elif verdict.kind != "empty":
                    record += 1
                    place = locate(line, verdict.byte, line=line_number, offset=offset)
                    bad.append(BadLine(record, verdict, place))
            line_number += 1
            offset += len(line) + 1
        yield record - seen_before, bad


def tell_lines(chunks: Iterable[bytes], judge: Judge) -> tuple[bool, Iterator[bytes]]:
    """Tell JSON Lines from one JSON text; return the verdict and the chunks, unconsumed.

    It is JSON Lines if the first line that is not blank is a complete value and more follows.
    Holds at most the first such line, and what blank lines surround it.
    """
    source = iter(chunks)
    taken = bytearray()
    is_lines = False
    for chunk in source:
        taken += chunk
        if b"\n" not in chunk:
            continue
        line, newline, rest = bytes(taken).lstrip(_BLANK).partition(b"\n")
        is_lines = bool(newline and rest.strip(_BLANK)) and not isinstance(judge(line), Fault)
        if newline and (is_lines or rest.strip(_BLANK)):
            break
    return is_lines, chain((bytes(taken),), source)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Regroup chunks so that each ends with a line's end (the last may lack its LF)."""
    pieces: list[bytes] = []
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            pieces.append(chunk[:cut])
            yield b"".join(pieces)
            pieces.clear()
        pieces.append(chunk[cut:])
    if rest := b"".join(pieces):
        yield rest
