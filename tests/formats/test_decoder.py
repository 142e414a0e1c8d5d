"""The check of UTF-8, in pieces, as Python decides it for the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.decoder import check_utf8

PIECE_BYTES = 64 * 1024


def is_utf8(text):
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def passes(text):
    try:
        check_utf8(text)
    except UnicodeDecodeError:
        return False
    return True


@given(
    st.integers(-6, 6),
    st.integers(0, 2),
    st.one_of(
        st.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=6),
    ),
    st.sampled_from([b"", b"a", "é".encode(), b"\xe2\x82"]),
)
def test_characters_at_the_ends_of_pieces(near, pieces, odd, end):
    text = b"a" * max(0, pieces * PIECE_BYTES + near) + odd + end
    assert passes(text) is is_utf8(text)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("shift", range(4))
def test_characters_that_pieces_cut(character, shift):
    text = b"a" * shift + (character * 40_000).encode()
    check_utf8(text)
    with pytest.raises(UnicodeDecodeError):
        check_utf8(text[:-1])
