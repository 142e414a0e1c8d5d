"""The form of an opened file: a JSON text or JSON Lines, compressed or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from asyncbatch.core.records import STDIN
from asyncbatch.formats.compression import SUFFIXES, check_not_compressed, detect_compression
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.grammar import Fault, examine, find_wide_encoding
from asyncbatch.formats.lines import detect_lines
from asyncbatch.formats.positions import BOM, WHITE_SPACE, TextPosition
from asyncbatch.storage.local import CHUNK_BYTES, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asyncbatch.core.records import Position
    from asyncbatch.core.settings import FileWorkSettings, Format, Sizes
    from asyncbatch.formats.validator import Validator
    from asyncbatch.storage.local import Content

LINES_ENDINGS = (".jsonl", ".ndjson")  # JSON Lines; a compression's ending may follow


TextForm = Literal["json", "jsonl", "concat", "seq"]


def open_text(
    content: Content,
    path: str,
    settings: FileWorkSettings,
    validator: Validator,
    form: Format | None = None,
    *,
    idle: float | None = None,
) -> tuple[TextForm, Iterator[bytes]]:
    """Return the format of a file, and its decompressed chunks.

    For lines that are not compressed, an empty chunk means that no data came for `idle` seconds.
    `form` overrides the format of the settings. Raises OSError, TooLargeError, CorruptArchiveError,
    also while chunks are read.
    """
    compression = detect_compression(content.head)
    if compression is not None:
        size = min(CHUNK_BYTES, settings.sizes.split)
        window = settings.max_window or settings.sizes.window
        chunks = compression.chunks(content.stream(), size, window)
        chunks = bounded(chunks, settings.max_unpacked, compression.name)
    else:
        check_not_compressed(content.head, path)
        chunks = content.chunks(idle)
    form = form or settings.format
    found: TextForm
    if form in ("concat", "seq"):
        found = form
    elif form == "auto" and path == STDIN:
        is_lines, chunks = detect_lines(chunks, validator, settings.sizes.record)
        found = "jsonl" if is_lines else "json"
    else:
        found = "jsonl" if is_json_lines(path, form) else "json"
    if compression is None:
        _check_start(content.head, found, is_all=content.is_whole)
    else:
        chunks = _with_checked_start(chunks, found)
    if found == "jsonl":
        return found, _bounded_lines(chunks, settings.sizes.record)
    return found, filter(None, chunks) if idle is not None else chunks


def is_compressed(content: Content) -> bool:
    """Whether the first bytes identify a compression format."""
    return detect_compression(content.head) is not None


def begins_array(head: bytes) -> bool:
    """Whether a JSON text with these first bytes is an array."""
    return head.removeprefix(BOM).lstrip(WHITE_SPACE).startswith(b"[")


def is_splittable(path: str, content: Content, sizes: Sizes, form: TextForm = "json") -> bool:
    """Whether a file is large, several workers can read parts of it, and its start is valid."""
    return (
        content.expected_size > sizes.split_threshold
        and path != STDIN
        and not is_compressed(content)
        and find_start_fault(content.head, form, is_all=False) is None
    )


def find_start_fault(head: bytes, form: TextForm, *, is_all: bool) -> Fault | None:
    """Return the error of a whole file that begins with `head`, if it is of another format.

    It is one error, where each line would be one: UTF-16, an archive, or a JSON text over several
    lines in JSON Lines. `is_all`: `head` is the whole file.
    """
    if wide := find_wide_encoding(head):
        return wide
    if head.startswith(b"\x1e") and form != "seq":
        return Fault("invalid_json", 0, "is a JSON text sequence (--input-format seq)")
    archive = "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None
    # JSON may have the word there, but never a NUL byte before it.
    if head.startswith(b"ustar", _TAR_MAGIC_AT) and b"\0" in head[:_TAR_MAGIC_AT]:
        archive = "tar"
    if archive == "zip" and _OFFICE_MEMBER in head[:_OFFICE_MEMBER_WITHIN]:
        advice = "which is not read: save it as CSV, and convert that to JSON"
        return Fault("invalid_json", 0, f"is an Office document (.xlsx, .docx), {advice}")
    if archive is not None:
        return Fault("invalid_json", 0, f"is a {archive} archive, {_ARCHIVE_ADVICE}")
    return _find_spread_text(head, is_all=is_all) if form == "jsonl" else None


def find_stream_fault(head: bytes) -> Fault | None:
    """Return the error of a file of a stream that begins with `head`, if it is no JSON Lines."""
    fault = find_start_fault(head, "jsonl", is_all=False)
    if fault is None:
        return None
    message, option, _ = fault.message.partition(" (--input-format")
    if not option:
        return fault
    each = ".[]" if begins_array(head) else "."
    return Fault(fault.kind, 0, f"{message} (jq -c '{each}' makes JSON Lines of it)")


_FORMAT_ADVICE = re.compile(r" \([^()]*--input-format \w+\)$")
_FORMAT_OPTION = re.compile(r"--input-format (\w+)")


def with_format_key(message: str, formats: Collection[str] | None = None) -> str:
    """Return a message with the key `format` of pipeline files in the place of the option.

    Advice that is not one of `formats` is left out: not every source has all of them.
    """
    found = _FORMAT_OPTION.search(message)
    if found is None:
        return message
    if formats is not None and found[1] not in formats:
        return _FORMAT_ADVICE.sub("", message)
    return _FORMAT_OPTION.sub(r'format = "\1"', message)


def as_line_of_stream(fault: Fault) -> Fault:
    """Return the error of a line, without the advice of an option that streams have not."""
    message, count = _FORMAT_ADVICE.subn("", fault.message)
    if not count:
        return fault
    return Fault(fault.kind, fault.byte, f"{message} (each event needs a line of its own)")


_ARCHIVE_ADVICE = (
    "which is read only as a local file with the ending of an archive (.zip, .tar, .tar.gz): "
    "download, rename or unpack it"
)
# The first member of an Office document; its name begins at byte 30.
_OFFICE_MEMBER, _OFFICE_MEMBER_WITHIN = b"[Content_Types].xml", 64
_TAR_MAGIC_AT = 257  # the byte of a tar archive at which "ustar" stands
_CLOSERS = {b"[": b"]", b"{": b"}"}
_TELLING_LINES = 3  # fewer lines may be JSON Lines with a bad first line


def _find_spread_text(head: bytes, *, is_all: bool) -> Fault | None:
    """Return the error of JSON Lines that begin with a JSON text over several lines."""
    start = head.removeprefix(BOM).lstrip(WHITE_SPACE)
    newline = start.find(b"\n")
    line = start[: max(0, newline)].rstrip(WHITE_SPACE)
    closer = _CLOSERS.get(line[:1])
    if closer is None or (line.endswith(closer) and len(line) > 1):
        return None  # the usual line: it ends where it should
    text = start if is_all else start[: start.rfind(b"\n") + 1]
    verdict = examine(text)
    spread = "is one JSON text over several lines, not JSON Lines (--input-format json)"
    if isinstance(verdict, int):
        return Fault("invalid_json", 0, spread)
    if verdict.kind == "invalid_json" and verdict.byte < len(text):
        if (
            b"\n" in text[: verdict.byte].rstrip(WHITE_SPACE)
            and "--input-format concat" in verdict.message
        ):
            message = (
                "has values over several lines, so it is not JSON Lines (--input-format concat)"
            )
            return Fault("invalid_json", 0, message)
        return None
    # The text ends early, which is no wonder if more follows.
    is_telling = not is_all and text.count(b"\n") >= _TELLING_LINES
    return Fault("invalid_json", 0, spread) if is_telling or len(line) == 1 else None


def _check_start(head: bytes, form: TextForm, *, is_all: bool) -> None:
    """Raise InvalidTextError if a file is of another format; see `find_start_fault`."""
    if fault := find_start_fault(head, form, is_all=is_all):
        raise InvalidTextError(fault, TextPosition(1, 1, 0))


def _with_checked_start(chunks: Iterator[bytes], form: TextForm) -> Iterator[bytes]:
    """Yield chunks. Raises InvalidTextError first, if they are of another format."""
    first = next(chunks, b"")
    second = next(chunks, None)
    _check_start(first, form, is_all=second is None)
    yield first
    del first
    if second is not None:
        yield second
        del second
    yield from chunks


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


def bounded(chunks: Iterator[bytes], most: int, name: str) -> Iterator[bytes]:
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
