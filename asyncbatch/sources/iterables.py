"""Iterables and async iterables of a program, as sources."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterable
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

from asyncbatch.core.batches import Chunk
from asyncbatch.core.records import Failure, InvalidRecord
from asyncbatch.errors import describe_error
from asyncbatch.formats.decoder import allow_deep_nesting, encode
from asyncbatch.formats.failures import FeedError
from asyncbatch.sources.base import LiveChunk
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.json_values import to_json_value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from asyncbatch.core.records import Bookmark
    from asyncbatch.sources.base import Feed

# A chunk is complete at the first of these three limits.
CHUNK_RECORDS = 500
CHUNK_BYTES = 1024 * 1024  # of JSON
CHUNK_SECONDS = 0.1  # since its first record, so that a slow source does not wait
MAX_CLOSE_SECONDS = 2.0  # the longest wait for an iterable to close

_END = object()


class IterableReader:
    """Reads ahead from an async iterable, in one task from its start to its close.

    One task is needed because the timeouts and task groups of a generator belong to a task. Each
    record is encoded when it arrives, because the program may change it afterwards. `error` is the
    exception of the iterable. Create it in the running event loop; it starts at once.
    """

    def __init__(
        self,
        source: Any,
        encode_record: Callable[[Any], bytes | InvalidRecord] | None = None,
    ) -> None:
        allow_deep_nesting()
        self.error: BaseException | None = None
        self._source = source
        self._encode_record = encode_record or json_record
        self._buffer: list[bytes | InvalidRecord] = []
        self._buffer_bytes = 0
        self._lock = threading.Lock()  # guards the buffer and its limit
        # Set while the buffer has records, and while it is full. At the end both are set.
        self._has_records, self._is_full = asyncio.Event(), asyncio.Event()
        self._has_room: asyncio.Event | threading.Event = asyncio.Event()
        self._is_started = self._is_stopping = self._is_ended = False
        self._loop = asyncio.get_running_loop()
        self._start()

    async def read(self) -> list[bytes | InvalidRecord]:
        """Return the next records as texts, or an empty list at the end.

        A cancelled call loses no record.
        """
        texts: list[bytes | InvalidRecord] = []
        while not texts:
            await self._has_records.wait()
            if not self._is_full.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHUNK_SECONDS):
                        await self._is_full.wait()
            texts = self.read_available()
            if self._is_ended:
                break
        return texts

    def read_available(self) -> list[bytes | InvalidRecord]:
        """Return and remove the texts in the buffer, without a wait."""
        with self._lock:
            texts, self._buffer, self._buffer_bytes = self._buffer, [], 0
            if not self._is_ended:
                self._has_records.clear()
                self._is_full.clear()
                self._has_room.set()
        return texts

    async def wait(self, seconds: float | None) -> None:
        """Wait for a record, the end, or `wake`, for `seconds` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_records.wait()

    def wake(self) -> None:
        """End the current `wait`."""
        self._has_records.set()

    @property
    def is_over(self) -> bool:
        """Whether all records were read and the iterable is closed."""
        return self._is_ended and not self._buffer

    def stop(self) -> None:
        """Stop reading ahead, and begin to close the iterable."""
        if not self._is_stopping and not self._is_ended:
            self._is_stopping = True
            self._stop()
            self._loop.call_later(MAX_CLOSE_SECONDS, self._mark_ended)

    async def aclose(self) -> None:
        """Close the iterable, and wait for its end for `MAX_CLOSE_SECONDS` at most."""
        self.stop()
        while not self._is_ended:
            self._has_records.clear()
            await self._has_records.wait()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._read_all(self._source))

    def _stop(self) -> None:
        if self._is_started:  # a task that is cancelled before its start would close nothing
            self._task.cancel()

    async def _read_all(self, source: AsyncIterable[Any]) -> None:
        self._is_started = True
        try:
            records = aiter(source)
            try:
                while not self._is_stopping and (record := await anext(records, _END)) is not _END:
                    if not self._add(record):
                        await self._has_room.wait()  # type: ignore[misc]  # an asyncio.Event
            finally:
                if hasattr(records, "aclose"):
                    await records.aclose()
        except Exception as error:  # noqa: BLE001 - of user code; the reader of the records raises it
            self.error = error
        except asyncio.CancelledError as error:
            # The iterable raised it. The task itself was not cancelled.
            if not self._is_stopping:
                self.error = RuntimeError("the source was cancelled from within")
                self.error.__cause__ = error
        finally:
            self._mark_ended()

    def _add(self, record: Any) -> bool:
        """Add a record to the buffer. Return whether there is room for more."""
        text = self._encode_record(record)
        with self._lock:
            self._buffer.append(text)
            self._buffer_bytes += len(text) if isinstance(text, bytes) else len(text.text)
            count = len(self._buffer)
            if has_room := count < CHUNK_RECORDS and self._buffer_bytes < CHUNK_BYTES:
                if count == 1:
                    self._set(self._has_records)
            else:
                self._has_room.clear()
                self._set(self._has_records)
                self._set(self._is_full)
        return has_room

    def _set(self, event: asyncio.Event) -> None:
        event.set()

    def _mark_ended(self) -> None:
        self._is_ended = True
        self._has_records.set()
        self._is_full.set()


class ThreadIterableReader(IterableReader):
    """Reads ahead from a synchronous iterable in a thread, so that it cannot block the loop.

    A thread cannot be interrupted: an iterable that still waits after `MAX_CLOSE_SECONDS` is
    abandoned, and is closed after its next record.
    """

    def _start(self) -> None:
        self._has_room = threading.Event()
        threading.Thread(
            target=self._read_in_thread, args=(self._source,), name="asyncbatch-source", daemon=True
        ).start()

    def _stop(self) -> None:
        self._has_room.set()

    def _read_in_thread(self, source: Iterable[Any]) -> None:
        try:
            records = iter(source)
            try:
                while not self._is_stopping and (record := next(records, _END)) is not _END:
                    if not self._add(record):
                        self._has_room.wait()
            finally:
                if hasattr(records, "close"):
                    records.close()
        except BaseException as error:  # noqa: BLE001 - of user code, which may also call sys.exit
            self.error = error
        finally:
            self._call_in_loop(self._mark_ended)

    def _set(self, event: asyncio.Event) -> None:
        self._call_in_loop(event.set)

    def _call_in_loop(self, function: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            self._loop.call_soon_threadsafe(function)


def read_iterable(
    source: AsyncIterable[Any] | Iterable[Any],
    encode_record: Callable[[Any], bytes | InvalidRecord] | None = None,
) -> IterableReader:
    """Start a reader of an iterable: in a task if it is async, else in a thread.

    `encode_record` encodes a record, by default as JSON.
    """
    make = IterableReader if isinstance(source, AsyncIterable) else ThreadIterableReader
    return make(source, encode_record)


def source_name(source: object) -> str:
    """Return the name of a generator's function, or "source"."""
    name = getattr(source, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else "source"


def unique_names(names: Iterable[str]) -> Iterator[str]:
    """Yield unique names: a repeated name gets a number from 2 on."""
    counts: Counter[str] = Counter()
    for name in names:
        counts[name] += 1
        yield name if counts[name] == 1 else f"{name}-{counts[name]}"


def json_record(record: Any) -> bytes | InvalidRecord:
    """Return a record as JSON text, or an InvalidRecord with the reason."""
    try:
        return encode(to_json_value(record))
    except RecordError as error:
        return InvalidRecord(_safe_repr(record), f"the source {error.message}")


def _safe_repr(record: object) -> bytes:
    try:
        return repr(record).encode(errors="backslashreplace")
    except Exception:  # noqa: BLE001 - user code may raise anything; or the nesting is too deep
        return object.__repr__(record).encode()


class IterableFeedSource:
    """A feed source with one feed: an iterable of records, async or not."""

    kind = "iterable"
    concurrency = 1
    files: Sequence[str] = ()

    def __init__(
        self,
        name: str,
        records: AsyncIterable[Any] | Iterable[Any],
    ) -> None:
        self.name = name
        self.feed: IterableFeed = IterableFeed(name, records)
        self.feeds: Sequence[Feed] = (self.feed,)
        self.is_complete = True

    @property
    def error(self) -> BaseException | None:
        """The exception of the iterable, or None."""
        return self.feed.error

    async def each_feed(self) -> AsyncGenerator[Feed, None]:
        yield self.feed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the iterable, even if no record was read."""
        await self.feed.aclose()

    def end(self) -> bool:
        """End the feed and return True: its records exist nowhere else."""
        self.feed.stop()
        return True

    def take_retry_count(self) -> int:
        return 0

    def take_notes(self) -> list[str]:
        return []

    def traffic(self) -> None: ...


class IterableFeed:
    """An iterable as a feed, without bookmarks: it cannot resume."""

    settings_digest = "given"
    is_incremental = is_unchanged = False
    group: str

    def __init__(self, name: str, records: AsyncIterable[Any] | Iterable[Any]) -> None:
        self.name = self.former_name = self.group = name
        self.error: BaseException | None = None
        self._records = records
        self._reader: IterableReader | None = None
        self._is_ended = False

    async def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:  # noqa: ARG002 - an iterable cannot resume
        if self._is_ended:
            return
        reader = self._reader = read_iterable(self._records)
        number = 1
        try:
            while texts := await reader.read():
                yield Chunk(self.name, texts, "records", number)
                number += len(texts)
        finally:
            await reader.aclose()
            self.error = reader.error
        if self.error is not None:
            raise FeedError(Failure(self.name, "read_error", describe_error(self.error)))

    def stop(self) -> None:
        """Read no more records."""
        self._is_ended = True
        if self._reader is not None:
            self._reader.stop()

    async def aclose(self) -> None:
        """Close the iterable, even if no record was read."""
        self._is_ended = True
        if self._reader is not None:
            await self._reader.aclose()
        elif hasattr(self._records, "aclose"):
            await self._records.aclose()
        elif hasattr(self._records, "close"):
            self._records.close()


class IterableSource:
    """An iterable of events, async or not, as a live source.

    An event is a value that JSON can represent, or a line of JSON as text or bytes. If the iterable
    raises an exception, it is kept as `error` and `on_failure` is called. The source then has no
    more events, but it is not over.
    """

    name: str
    is_over: bool

    def __init__(self, name: str, events: AsyncIterable[Any] | Iterable[Any]) -> None:
        self.name, self.is_over = name, False
        self.on_failure: Callable[[], None] = lambda: None
        self._events = events
        self._reader: IterableReader | None = None
        self._chunks: deque[LiveChunk] = deque()

    @property
    def error(self) -> BaseException | None:
        """The exception of the iterable, or None."""
        return None if self._reader is None else self._reader.error

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        if not self._chunks:
            if self._reader is None:
                self._reader = read_iterable(self._events, json_line)
            await self._reader.wait(timeout)
            self._take_buffered(self._reader)
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self.is_over = chunk.ends_file
        return chunk

    async def drain(self) -> Sequence[LiveChunk]:
        """Close the iterable and return the remaining chunks."""
        if self._reader is not None and not self.is_over:
            await self._reader.aclose()
            self._chunks += self._cut(self._reader.read_available())
        rest = [chunk for chunk in self._chunks if not chunk.ends_file]
        self._chunks.clear()
        return rest

    def wake(self) -> None:
        """End the wait of `read`."""
        if self._reader is not None:
            self._reader.wake()

    def close(self) -> None:
        """Stop reading ahead; `aclose` also waits until the iterable is closed."""
        if self._reader is not None:
            self._reader.stop()

    async def aclose(self) -> None:
        """Close the iterable, even if no event was read."""
        if self._reader is not None:
            await self._reader.aclose()
        elif hasattr(self._events, "aclose"):
            await self._events.aclose()
        elif hasattr(self._events, "close"):
            self._events.close()

    def _take_buffered(self, reader: IterableReader) -> None:
        self._chunks += self._cut(reader.read_available())
        if not reader.is_over:
            return
        if reader.error is None:
            self._chunks.append(LiveChunk(self.name, b"", ends_file=True))
        else:
            self.on_failure()

    def _cut(self, records: Sequence[bytes | InvalidRecord]) -> Iterator[LiveChunk]:
        """Yield chunks of lines. Each invalid record is a separate chunk."""
        for kind, some in groupby(records, type):
            if kind is bytes:
                yield LiveChunk(self.name, b"".join(some))  # type: ignore[arg-type]  # all are bytes
            else:
                for one in some:
                    assert isinstance(one, InvalidRecord)
                    yield LiveChunk(self.name, one.text, line_error=one.reason)


def json_line(event: Any) -> bytes | InvalidRecord:
    """Return an event as a line of JSON, or an InvalidRecord with the reason."""
    if type(event) is not dict:  # skip these checks for a dict, the usual type
        if isinstance(event, str):
            try:
                event = event.encode()
            except UnicodeEncodeError:
                return InvalidRecord(
                    ascii(event).encode(), "the source gave text that is not UTF-8"
                )
        if isinstance(event, bytes | bytearray | memoryview):
            line = bytes(event)
            return line if line.endswith(b"\n") else line + b"\n"
    text = json_record(event)
    return text if isinstance(text, InvalidRecord) else text + b"\n"
