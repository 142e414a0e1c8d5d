"""The validation of many JSON Lines by one call of a parser.

A call costs as much as the parsing of some hundred bytes. So short lines are joined to one text:

    [[[ … [ line 1 ,[[0]], LF line 2 ,[[0]], LF line 3 ,[[0]], LF "secret" ] … ]]]

If the parser accepts it, and finds the secret at index 2n of the innermost array (from 0), then
each of the n lines is exactly one JSON text:

1. A joint `,[[0]], LF` is outside of all strings, because JSON allows no LF in a string.
2. A joint is outside of all brackets and braces of lines. The brackets at the start and those of
   the joint use up the depth that the parser allows, so it refuses a joint that is deeper.
3. No line closes the innermost array, because the secret is an element of it. A line cannot contain
   the secret: it is random, and never leaves the process.
4. So the joints and the secret are n + 1 elements of the array, and the n lines, which they
   separate, hold n elements together. Each line holds at least one, because the parser refuses a
   comma without a value before it. So each line holds one.

UTF-8, numbers and escapes are checked in each line as in a text of its own, for no character and no
token continues after a joint. `1,2` and `[1,` with `2]` are refused by 4 and by 2.
"""

from __future__ import annotations

import os
from collections import deque
from io import BytesIO
from typing import TYPE_CHECKING

from asyncbatch.formats.positions import BOM

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BLOCK_BYTES = 256 * 1024  # lines that are joined; they stay in the cache of the processor

# Nested arrays that are not empty, and that simdjson accepts. The others do not count.
_MAX_DEPTH = 1023
_MAX_JOINT_DEPTH = 16  # deeper lines are parsed one by one, as deeper joints take long
# With fewer lines in the first bytes, the lines are long, and parsed as fast one by one.
_SAMPLE_BYTES, _MIN_SAMPLE_LINES = 8 * 1024, 16
_MAX_PAUSE = 16  # blocks; each refused one in a row doubles the number of those not tried


class LineBlockParser:
    """Parses blocks of lines, and learns how deep the lines are. For one thread.

    `parse` returns a value of simdjson, or raises ValueError, or RuntimeError for a text that is
    too deep.
    """

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self._secret = os.urandom(16).hex()
        self._pause = self._remaining_pause = 0
        self._depth = 0
        self._deepen()
        self._is_usable = self._accepts_depth(_MAX_DEPTH) and not self._accepts_depth(
            _MAX_DEPTH + 1
        )

    def count(self, lines: bytes) -> int:
        """Return the number of lines if each is one JSON text without a BOM, else 0.

        The last line may lack its LF. 0 does not mean that a line is invalid: the parser refuses
        some valid values, and blocks after a refused one are not tried.
        """
        if self._remaining_pause:
            self._remaining_pause -= 1
            return 0
        count = self._count(lines)
        self._pause = 0 if count else min(2 * self._pause + 1, _MAX_PAUSE)
        self._remaining_pause = self._pause
        return count

    def _count(self, lines: bytes) -> int:
        if not self._is_usable or lines.count(b"\n", 0, _SAMPLE_BYTES) < _MIN_SAMPLE_LINES:
            return self._count_each(lines)
        while True:
            try:
                return self._count_joined(lines)
            except RuntimeError:
                if self._depth >= _MAX_JOINT_DEPTH:
                    return 0
                self._deepen()
            except (ValueError, LookupError, TypeError):
                return 0

    def _count_joined(self, lines: bytes) -> int:
        """Return the number of lines, or 0. Raises an error if the parser refuses the text."""
        joint = self._joint
        joined = lines.replace(b"\n", joint)
        count = (len(joined) - len(lines)) // (len(joint) - 1)
        last_joint = b"" if lines.endswith(b"\n") else joint
        count += bool(last_joint)
        text = b"".join((self._openers, joined, last_joint, self._end))
        found = self._parse(text).at_pointer(f"{self._path}{2 * count}")
        return count if found == self._secret else 0

    def _count_each(self, lines: bytes) -> int:
        """Return the number of lines if the parser accepts each by itself, else 0."""
        if BOM[:1] in lines and BOM in lines:  # the parser would accept it before each line
            return 0
        # One line is not copied, for it may be huge.
        is_one = lines.find(b"\n") in (-1, len(lines) - 1)
        texts = [lines] if is_one else BytesIO(lines).readlines()
        try:
            deque(map(self._parse, texts), maxlen=0)
        except (ValueError, RuntimeError):
            return 0
        return len(texts)

    def _deepen(self) -> None:
        """Double the depth of the joints, which is that of the deepest line that is accepted."""
        self._depth = 2 * self._depth or 1
        outer = _MAX_DEPTH - self._depth
        self._joint = b",%b0%b,\n" % (b"[" * self._depth, b"]" * self._depth)
        self._openers = b"[" * outer
        self._end = b'"%b"%b' % (self._secret.encode(), b"]" * outer)
        self._path = "/0" * (outer - 1) + "/"

    def _accepts_depth(self, depth: int) -> bool:
        try:
            self._parse(b"[" * depth + b"0" + b"]" * depth)
        except RuntimeError:
            return False
        return True
