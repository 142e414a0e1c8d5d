"""The errors of reading one file, and their conversion into failures."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from msgspec import structs

from asyncbatch.core.paths import is_archive_name
from asyncbatch.core.records import Failure, FailureKind
from asyncbatch.core.retry import attempts_note
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.members import CorruptArchiveError, WindowTooLargeError
from asyncbatch.formats.positions import locate_byte
from asyncbatch.storage.local import TooLargeError
from asyncbatch.storage.store_errors import ObjectError

if TYPE_CHECKING:
    from asyncbatch.formats.lines import InvalidLine
    from asyncbatch.formats.positions import TextPosition
    from asyncbatch.formats.validator import Validator

_OS_ERROR_KINDS: dict[int | None, FailureKind] = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}
_OS_ERROR_ADVICE = {
    errno.ENOENT: "no such file",
    errno.EACCES: "not readable by this user (check its permissions, and its folders')",
    errno.EISDIR: "is a folder that could not be listed",
    errno.ELOOP: "is a symbolic link that leads to itself",
}


class InvalidTextError(Exception):
    """A file's text is not valid JSON: `fault` has the reason, `position` the place."""

    fault: Fault
    position: TextPosition

    def __init__(self, fault: Fault, position: TextPosition) -> None:
        super().__init__(fault, position)
        self.fault, self.position = fault, position


class FileTimeoutError(Exception):
    """A file takes longer than `limit` seconds."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit


class FeedError(Exception):
    """A feed failed: `failure` has the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def validate_text(text: bytes, validator: Validator) -> int:
    """Return the record count of a file's text. Raises InvalidTextError."""
    verdict = validator(text)
    if isinstance(verdict, Fault):
        raise InvalidTextError(verdict, locate_byte(text, verdict.byte))
    return verdict


# The errors of reading one file. Any other exception is a defect of asyncbatch.
FILE_ERRORS = (
    OSError, TooLargeError, CorruptArchiveError, InvalidTextError, FileTimeoutError, FeedError,
    MemoryError,
)  # fmt: skip


def file_failure(file: str, error: Exception) -> Failure:  # noqa: PLR0911 - one return per kind of error
    """Return the failure of a whole file for one of `FILE_ERRORS`."""
    if isinstance(error, FeedError):
        return error.failure
    match error:
        case InvalidTextError(fault=fault, position=position):
            location = () if fault.kind == "empty" else position
            return Failure(file, fault.kind, fault.message, None, *location)
        case WindowTooLargeError():
            return Failure(file, "too_large", str(error))
        case CorruptArchiveError():
            return Failure(file, "corrupt_archive", str(error))
        case TooLargeError():
            return Failure(file, "too_large", str(error))
        case FileTimeoutError(limit=limit):
            return Failure(file, "timeout", f"took longer than {limit:g} s (--timeout)")
        case OSError():
            kind = _OS_ERROR_KINDS.get(error.errno, "read_error")
            message = error.strerror or str(error)
            if error.errno == errno.ENOTDIR:
                message = _missing_below(file)
            elif not isinstance(error, ObjectError):
                message = _OS_ERROR_ADVICE.get(error.errno or 0, message)
            return Failure(file, kind, message + attempts_note(error))
        case _:
            return Failure(file, "too_large", "does not fit in memory")


def _missing_below(path: str) -> str:
    """Return the reason why there is no file at a path that leads through a file."""
    at = path.find("/")
    while at >= 0:
        if is_archive_name(path[:at]):
            return f"the archive {path[:at]} has no file {path[at + 1 :]}"
        at = path.find("/", at + 1)
    return "no such file: a part of its path is a file, not a folder"


def with_record_count(failure: Failure, count: int) -> Failure:
    """Return the failure of a split file, with the count of records before it."""
    if not count:
        return failure
    records = f"{count:,} record{'' if count == 1 else 's'}"
    return structs.replace(failure, message=f"{failure.message} (after {records})")


def line_failure(file: str, bad: InvalidLine) -> Failure:
    """Return the failure of one line of JSON Lines."""
    return Failure(file, bad.fault.kind, bad.fault.message, bad.record, *bad.position)
