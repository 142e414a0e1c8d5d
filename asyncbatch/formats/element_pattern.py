"""A pattern of the places between the elements of an array, for guesses without parsing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from asyncbatch.formats.positions import WHITE_SPACE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_COMMA = 0x2C
_BEGINNING_BYTES = 24  # bytes from a comma on that are compared


class ElementPattern(NamedTuple):
    """The bytes with which the elements of an array begin alike, from the comma before them.

    A text that matches may lie in a string, or deeper in an element: a guess has to be confirmed.
    """

    prefix: bytes
    following: bytes  # the bytes of which one comes after the prefix

    @classmethod
    def learn(cls, text: bytes, boundaries: Sequence[int]) -> Self | None:
        """Return the pattern of an array from its beginning, and None if there is no good one.

        `text` begins with the bracket, and `boundaries` are those of `find_boundaries`. Only they
        match a good pattern.
        """
        most = len(text) - _BEGINNING_BYTES
        commas = [at for at in boundaries if at < most and text[at] == _COMMA]
        if not commas:
            return None
        beginnings = {text[at : at + _BEGINNING_BYTES] for at in commas}
        # The first element has no comma. It counts as if it had one, and the same white space.
        second = text[commas[0] + 1 : most]
        blanks = second[: len(second) - len(second.lstrip(WHITE_SPACE))]
        first = text[1 : 2 * _BEGINNING_BYTES].lstrip(WHITE_SPACE)
        beginnings.add(b"".join((b",", blanks, first))[:_BEGINNING_BYTES])
        prefix = _common_prefix(beginnings)[: _BEGINNING_BYTES - 1]
        following = bytes({one[len(prefix)] for one in beginnings if len(one) > len(prefix)})
        pattern = cls(prefix, following)
        return pattern if prefix and pattern._matches_only(text, commas) else None

    def find(self, text: bytes, start: int = 0) -> int:
        """Return the offset of the first match in `text` from `start` on, -1 if there is none."""
        at = text.find(self.prefix, start, -1)
        while at >= 0 and text[at + len(self.prefix)] not in self.following:
            at = text.find(self.prefix, at + 1, -1)
        return at

    def _matches_only(self, text: bytes, commas: list[int]) -> bool:
        """Whether each match up to the last of some commas is one of these."""
        known, at = set(commas), self.find(text)
        while 0 <= at <= commas[-1]:
            if at not in known:
                return False
            at = self.find(text, at + 1)
        return True


def _common_prefix(texts: Collection[bytes]) -> bytes:
    first, last = min(texts), max(texts)
    for length, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:length]
    return first  # no text is less than its beginning
