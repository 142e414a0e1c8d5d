"""What can be wrong with a text."""

from __future__ import annotations

from typing import Literal, NamedTuple

FaultKind = Literal["invalid_json", "encoding", "too_deep", "empty"]


class Fault(NamedTuple):
    """The first thing wrong with a text, and the byte of it where that is."""

    kind: FaultKind
    byte: int
    message: str
