"""The form of an opened file: a JSON text or JSON Lines, compressed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.core.records import STDIN
from asyncbatch.formats.compression import SUFFIXES, check_not_compressed, detect_compression
from asyncbatch.formats.lines import detect_lines
from asyncbatch.storage.local import CHUNK_BYTES, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import Position
    from asyncbatch.core.settings import FileWorkSettings, Format, Sizes
    from asyncbatch.formats.validator import Validator
    from asyncbatch.storage.local import Content

LINES_ENDINGS = (".jsonl", ".ndjson")  # JSON Lines; a compression's ending may follow


def open_text(
    content: Content,
    path: str,
    settings: FileWorkSettings,
    validator: Validator,
    form: Format | None = None,
    *,
    idle: float | None = None,
) -> tuple[bool, Iterator[bytes]]:
    """Return whether a file holds JSON Lines, and its decompressed chunks.

    For lines that are not compressed, an empty chunk means that no data came for `idle` seconds.
    `form` overrides the format of the settings. Raises OSError, TooLargeError, CorruptArchiveError,
    also while chunks are read.
    """
    if compression := detect_compression(content.head):
        size = min(CHUNK_BYTES, settings.sizes.split)
        window = settings.max_window or settings.sizes.window
        chunks = compression.chunks(content.stream(), size, window)
        chunks = _bounded(chunks, settings.max_unpacked, compression.name)
    else:
        check_not_compressed(content.head, path)
        chunks = content.chunks(idle)
    form = form or settings.format
    if form == "auto" and path == STDIN:
        is_lines, chunks = detect_lines(chunks, validator, settings.sizes.record)
    else:
        is_lines = is_json_lines(path, form)
    if is_lines:
        return True, _bounded_lines(chunks, settings.sizes.record)
    return False, filter(None, chunks) if idle is not None else chunks


def is_compressed(content: Content) -> bool:
    """Whether the first bytes identify a compression format."""
    return detect_compression(content.head) is not None


def is_splittable(path: str, content: Content, sizes: Sizes) -> bool:
    """Whether a file is large and several workers can read parts of it."""
    return (
        content.expected_size > sizes.split_threshold
        and path != STDIN
        and not is_compressed(content)
    )


def skip_bytes(chunks: Iterator[bytes], start: Position | None) -> Iterator[bytes]:
    """Yield the chunks from a position on; all of them for None."""
    left = start.byte if start else 0
    for chunk in chunks:
        if left < len(chunk) or not left:
            yield chunk[left:] if left else chunk
        left = max(0, left - len(chunk))


def is_json_lines(path: str, form: Format) -> bool:
    """Whether a file is JSON Lines by `form`; if that is auto, by its name."""
    return form == "jsonl" if form != "auto" else has_lines_suffix(path)


def _bounded(chunks: Iterator[bytes], most: int, name: str) -> Iterator[bytes]:
    """Yield chunks. Raises TooLargeError after more than `most` bytes."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > most:
            message = f"{name}: unpacks to more than {most:,} bytes (--max-decompressed-size)"
            raise TooLargeError(total, most, message)
        yield chunk


def _bounded_lines(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Yield chunks. Raises TooLargeError after a line of more than `most` bytes."""
    length = 0
    for chunk in chunks:
        last = chunk.rfind(b"\n") + 1
        length = len(chunk) - last if last else length + len(chunk)
        yield chunk
        if length > most:
            raise TooLargeError(length, most, f"a line has more than {most:,} bytes, the limit")


def has_lines_suffix(path: str) -> bool:
    """Whether the ending of a file name, or of a URL's path, means JSON Lines."""
    is_web = path.startswith(("http://", "https://"))
    name = (path.partition("?")[0] if is_web else path).lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(LINES_ENDINGS)
