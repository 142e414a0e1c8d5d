"""Errors of object stores, as messages with advice.

The HTTP status and the error code of the response decide. A message never repeats the request,
which may contain secrets.
"""

from __future__ import annotations

import errno
import re

from asyncbatch.core.paths import parse_address, redact_url

CHANGED_MESSAGE = "was cut short, or replaced, while it was read"

NO_OBJECT_MESSAGE = "no such object"

_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>|\"code\": ?\"(\w{1,60})\"")
_KIND = re.compile(r"kind: (Connect|Timeout|Interrupted|Request|Decode|Unknown)\b")
_SYSTEM = re.compile(r"message: \"([^\"]{1,100})\"|error: \"([^\"]{1,200})\"")
_CREDENTIALS = re.compile(
    r"169\.254\.|metadata\.google|token request|CredentialProvider|api/token|assume.?role",
    re.IGNORECASE,
)
_STORE = re.compile(r"^Generic \w+ error: ")
_URL = re.compile(r"\w+://\S+")
_STATUS_OF_TYPE = {
    "FileNotFoundError": 404,
    "PermissionDeniedError": 403,
    "UnauthenticatedError": 401,
    "AlreadyExistsError": 409,
}
_PROVIDERS = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_THROTTLED = frozenset({408, 429, 500, 502, 503, 504})


class ObjectError(OSError):
    """An object could not be read or written.

    `errno` classifies the error; EAGAIN and ECONNRESET are transient. The message has no secrets.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)

    def __str__(self) -> str:
        return str(self.strerror)


class ChangedError(ObjectError):
    """An object has changed since it was opened."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, CHANGED_MESSAGE)


def object_error(error: BaseException, url: str) -> ObjectError:
    """Return an ObjectError for an error of the library about the object at `url`."""
    if isinstance(error, ObjectError):
        return error
    text, name = str(error), type(error).__name__
    if name == "PreconditionError":
        return ChangedError()
    status = _status(text)
    if _CREDENTIALS.search(text) or (status is None and name == "UnauthenticatedError"):
        return ObjectError(errno.EACCES, _no_credentials(url))
    status = status or _STATUS_OF_TYPE.get(name)
    if status is not None:
        return answer_error(status, _code(text), url)
    if kind := _KIND.search(text):
        return ObjectError(errno.ECONNRESET, _connection_error(kind[1], text))
    has_no_length = "Content-Length Header missing" in text
    reason = "the server does not report its length" if has_no_length else library_reason(error)
    return ObjectError(errno.EINVAL, reason)


def answer_error(status: int, code: str | None, url: str) -> ObjectError:
    """Return an ObjectError for an answer with an error status, and the store's error code."""
    answer = f"{status} {code}" if code else str(status)
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return ObjectError(errno.ENOENT, _no_bucket(url))
    if status in (404, 410):
        return ObjectError(errno.ENOENT, NO_OBJECT_MESSAGE)
    if status in (401, 403):
        return ObjectError(errno.EACCES, f"not permitted (the store says {answer})")
    if status in _THROTTLED:
        return ObjectError(errno.EAGAIN, f"the store could not answer ({answer})")
    if status in (301, 307) and url.startswith("s3:"):
        answer += "; is the bucket in another region? AWS_REGION names it"
    return ObjectError(errno.EINVAL, f"the store refused ({answer})")


def library_reason(error: BaseException) -> str:
    """Return the first line of the library's message, with redacted URLs."""
    line = _STORE.sub("", str(error).partition("\n")[0])
    if line == "Account must be specified":
        line = "AZURE_STORAGE_ACCOUNT_NAME does not name the storage account"
    return _URL.sub(lambda found: redact_url(found[0]), line)


def _status(text: str) -> int | None:
    match = _STATUS.search(text)
    return int(match[1] or match[2]) if match else None


def _code(text: str) -> str | None:
    match = _CODE.search(text)
    return (match[1] or match[2]) if match else None


def _no_bucket(url: str) -> str:
    address = parse_address(url)
    noun = "container" if address.scheme == "az" else "bucket"
    return f"there is no {noun} {address.bucket!r}"


def _no_credentials(url: str) -> str:
    provider = _PROVIDERS.get(parse_address(url).scheme, "the server")
    return (
        f"no credentials for {provider} were found, or they could not be loaded (docs/cloud.md "
        "lists the places; --anonymous sends none)"
    )


def _connection_error(kind: str, text: str) -> str:
    """Describe a failed connection, with the system's message if it has one."""
    if kind == "Timeout" or "TimedOut" in text:
        return "the store did not answer in time"
    if kind == "Interrupted" or "IncompleteBody" in text:
        return "the response ended early"
    messages = [found[1] or found[2] for found in _SYSTEM.finditer(text)]
    reason = f": {messages[-1]}" if messages else ""
    if kind == "Connect":
        return f"no connection{reason}"
    return f"the connection broke{reason}"
