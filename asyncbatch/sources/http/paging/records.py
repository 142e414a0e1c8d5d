"""The records of a page, and the signs that an answer is an error or a repetition."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.formats.csv_records import CsvError, csv_rows
from asyncbatch.formats.decoder import decode, decode_array, encode
from asyncbatch.formats.keyed_records import object_at
from asyncbatch.formats.positions import format_pointer, parse_pointer, text_at
from asyncbatch.sources.http.failures import NoRecordsError
from asyncbatch.sources.http.settings import OffsetPagination, PagePagination

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.sources.http.response import HttpResponse
    from asyncbatch.sources.http.settings import HttpSettings

_MAX_REMEMBERED_PAGES = 10_000  # for the check of repetition; `max_pages` ends longer cycles
# Pages without records in a row, although the answers tell only that there are more.
MAX_EMPTY_PAGES = 100
_DIGEST_BYTES = 16

# The names with which APIs say that a request failed, and those that only come beside them. An
# object without any other name is an error, not a record.
_FLAGS = ("ok", "success")
_ERRORS = ("error", "errors")
_REASONS = ("message", "detail", "title", "error_description", "error_message", "reason")
_COMPANIONS = {
    *_FLAGS, *_ERRORS, *_REASONS, "code", "status", "statusCode", "status_code", "type", "instance",
    "timestamp", "path", "documentation_url", "request_id", "requestId", "trace_id", "traceId",
    "errorCode", "error_code", "errorMessage", "details",
}  # fmt: skip
_FAILED_STATUSES = {"error", "fail", "failed", "failure"}


class PageRecords(Struct, frozen=True):
    """The records of a page: their shape, number and digest. A stream has no number yet."""

    # "array", "single" for a page that is one record, "object" for records by key, "lines", "csv"
    shape: str
    count: int | None
    digest: str = ""  # of their text; empty without records
    is_absent: bool = False  # there is null, or nothing, in the place of an array
    last: Any = None  # the text of the last record of a JSON text


class RecordsCheck:
    """Finds the records of each page of one URL, in order of the pages.

    `shape` is that of the pages so far: in a URL that is resumed, of those of the earlier run.
    `excerpt` shortens a text of the server, without secrets.
    """

    def __init__(
        self, settings: HttpSettings, excerpt: Callable[[str], str], shape: str = ""
    ) -> None:
        self._excerpt = excerpt
        self._pointer = parse_pointer(settings.records)
        self._is_keyed = settings.key_field is not None
        self._is_paged = settings.pagination is not None
        self._is_numbered = isinstance(settings.pagination, PagePagination | OffsetPagination)
        self.shape: str = shape  # empty as long as no page had records
        self._keys: set[str] = set()  # of the last page that was a single object
        self._seen: dict[str, int] = {}  # the numbers of earlier pages, by their digest

    def find(self, answer: HttpResponse) -> PageRecords:
        """Return the records of a page.

        Raises NoRecordsError for an answer that has no records where those of earlier pages are.
        """
        if answer.stream is not None:
            return self._accept(PageRecords("lines", None))
        if answer.is_lines:
            count = count_lines(answer.body)
            return self._accept(PageRecords("lines", count, _digest(answer.body) if count else ""))
        if answer.is_csv:
            return self._accept(_csv_records(answer.body))
        if answer.is_empty:
            return PageRecords("array", 0, is_absent=True)
        found = self._find_keyed if self._is_keyed else self._find_json
        return self._accept(found(answer))

    def _find_json(self, answer: HttpResponse) -> PageRecords:
        """Return the records of a page that is one JSON text."""
        text = text_at(answer.body, self._pointer)
        first = b"" if text is None else bytes(memoryview(text)[:1])
        if text is not None and first in (b"[", b"n"):
            texts = decode_array(text) if first == b"[" else []
            count = len(texts)
            if not count and (error := self._error_of(answer.body)):
                raise NoRecordsError(_error_message(error), answer.body)
            digest = _digest(text) if count else ""
            last = texts[-1] if texts else None
            return PageRecords("array", count, digest, first == b"n", last)
        if self._pointer or self._is_numbered or (self._is_paged and first != b"{"):
            raise self._no_array(answer.body, first)
        had_arrays = self.shape in ("array", "lines", "csv")
        if self._is_paged and had_arrays:
            raise self._no_array(answer.body, first)
        # Without pages, a single record may stand for an array of one.
        if first == b"{" and (self._is_paged or had_arrays):
            self._check_object(answer.body)
        return PageRecords("single", 1, _digest(answer.body))

    def earlier_page(self, records: PageRecords, number: int) -> int | None:
        """Return the number of an earlier page with the same records, else remember these."""
        if not records.digest:
            return None
        earlier = self._seen.get(records.digest)
        if earlier is None:
            self._seen[records.digest] = number
            if len(self._seen) > _MAX_REMEMBERED_PAGES:
                del self._seen[next(iter(self._seen))]
        return earlier

    def remember(self, digest: str, number: int) -> None:
        """Remember the records of a page that an earlier run read."""
        self._seen[digest] = number

    def _check_object(self, body: bytes) -> None:
        """Raise NoRecordsError if a page that is one object is an error instead of a record."""
        found = decode(text_at(body, ()) or b"{}")
        if found.keys() != self._keys and (
            error := _error_in(found, self._excerpt, is_record=True)
        ):
            raise NoRecordsError(_error_message(error), body)
        self._keys = set(found)

    def _find_keyed(self, answer: HttpResponse) -> PageRecords:
        """Return the records of a page that are the values of an object."""
        body = answer.body
        texts = object_at(body, self._pointer)
        if texts is None:
            return self._no_object(body)
        if not self._pointer:
            self._check_object(body)
        elif not texts and (error := self._error_of(body)):
            raise NoRecordsError(_error_message(error), body)
        last = next(reversed(texts.values()), None)
        digest = _digest(text_at(body, self._pointer)) if texts else ""
        return PageRecords("object", len(texts), digest, last=last)

    def _no_object(self, body: bytes) -> PageRecords:
        """Return no records for null or an empty array. Raises NoRecordsError for the rest."""
        text = text_at(body, self._pointer)
        if error := self._error_of(body):
            raise NoRecordsError(_error_message(error), body)
        value = None if text is None else decode(text)
        if text is not None and value in (None, []):  # some servers write {} as []
            return PageRecords("object", 0, is_absent=True)
        where = f"at {format_pointer(self._pointer)}" if self._pointer else "at the top"
        there = "nothing" if text is None else "an array" if value.__class__ is list else "a value"
        raise NoRecordsError(
            f"expected an object of records {where}, found {there}: key_field is only for records "
            "that are the values of an object",
            body,
        )

    def _accept(self, records: PageRecords) -> PageRecords:
        if not records.is_absent and (records.count != 0 or records.shape in ("array", "csv")):
            self.shape = records.shape
        return records

    def _error_of(self, body: bytes) -> str | None:
        """Return the error that a JSON text without records reports, None if it reports none."""
        text = text_at(body, ())
        if text is None or bytes(memoryview(text)[:1]) != b"{":
            return None
        return _error_in(decode(text), self._excerpt)

    def _no_array(self, body: bytes, first: bytes) -> NoRecordsError:
        if error := self._error_of(body):
            return NoRecordsError(_error_message(error), body)
        where = f"at {format_pointer(self._pointer)}" if self._pointer else "at the top"
        if not self._pointer:
            where += " of the response"
        there = "an object" if first == b"{" else "a single value" if first else "nothing"
        advice = (
            "the pages before had one, or those of an earlier run (--full-refresh forgets them)"
            if self.shape
            else "`records` sets its JSON Pointer"
        )
        return NoRecordsError(
            f"expected an array of records {where}, found {there}: {advice}", body
        )


def _csv_records(body: bytes) -> PageRecords:
    try:
        count = max(0, sum(1 for _ in csv_rows(body)) - 1)
    except CsvError as error:
        raise NoRecordsError(f"the response is not CSV: {error}", body) from None
    return PageRecords("csv", count, _digest(body) if count else "")


def count_lines(body: bytes) -> int:
    """Return the number of lines that are not blank."""
    return sum(1 for line in body.split(b"\n") if line.strip())


def value_at(body: bytes, pointer: Sequence[str]) -> Any:
    """Return the value at `pointer` of a valid JSON text, None if it is missing."""
    text = text_at(body, pointer)
    return None if text is None else decode(text)


def _error_in(
    answer: dict[str, Any], excerpt: Callable[[str], str], *, is_record: bool = False
) -> str | None:
    """Return the error that an object reports, None if it reports none.

    With `is_record` it may also be a record: then it is an error if nothing else is in it, or if
    it says both that the request failed and why.
    """
    signs = [f"{name} is false" for name in _FLAGS if answer.get(name) is False]
    if str(answer.get("status")).lower() in _FAILED_STATUSES:
        signs.append(f"status is {answer['status']}")
    reasons = [name for name in (*_ERRORS, *_REASONS) if answer.get(name)]
    is_error = bool(signs) or any(answer.get(name) for name in _ERRORS)
    if is_record:
        others = answer.keys() - _COMPANIONS
        if any(answer[name] for name in others):
            is_error = bool(signs and reasons)
        else:
            is_error = is_error or bool(reasons and not others)
    signs += [f"{name} is {excerpt(_text_of(answer[name]))}" for name in reasons]
    return ", ".join(signs) if is_error else None


def _error_message(error: str) -> str:
    return f"the answer reports an error, although its status is one of success: {error}"


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode()


def _digest(text: Any) -> str:
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()
