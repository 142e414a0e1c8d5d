"""The names of partitions: the texts of values in the names of files."""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Raw, ValidationError, defstruct, field
from msgspec.json import Decoder

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.sinks.partitions.layout import NAME_BYTES
from asyncbatch.transforms.fields import make_field_getter, parse_path, to_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.partitions.layout import PartitionField, PartitionLayout

# The names for values that have no text of their own. The first is Hive's, which DuckDB and Spark
# read as null.
NULL = "__HIVE_DEFAULT_PARTITION__"  # a missing field, or null
EMPTY = "__EMPTY__"  # an empty string
INVALID = "__INVALID__"  # a value that is not a time, in {date:FIELD:FORMAT}
_RESERVED = frozenset((NULL, EMPTY, INVALID))

# Characters that file systems, shells, globs or URLs take for something else, as in Hive. `~`
# marks a text that was cut.
_UNSAFE = re.compile(r"""[\x00-\x1f\x7f"#%'*/:<=>?\\\[\]^{|}~]|^[. ]|[. ]$""")


def safe_text(text: str, most_bytes: int = NAME_BYTES) -> str:
    """Return a text as a part of a file name. `%XX` has the bytes of other characters in UTF-8.

    A text that is too long is cut: its digest follows a `~`.
    """
    if not text:
        return EMPTY
    if text in _RESERVED:
        return _escape(text[0]) + text[1:]
    safe = _UNSAFE.sub(lambda found: _escape(found[0]), text)
    if not safe.isprintable():
        safe = "".join(one if one.isprintable() else _escape(one) for one in safe)
    size = len(safe.encode())
    return safe if size <= most_bytes else _cut(safe, text, most_bytes)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _cut(safe: str, text: str, most_bytes: int) -> str:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    start = safe.encode()[: most_bytes - len(digest) - 1].decode("utf-8", "ignore")
    start = re.sub("%[0-9A-F]?$", "", start)
    return f"{start}~{digest}"


_MAX_TEXTS = 65_536  # texts of values that are kept, for each field


class _Texts(dict[str, str]):
    """The texts of the strings of one field, which are computed once."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, value: str) -> str:
        if len(self) >= _MAX_TEXTS:
            self.clear()
        text = self[value] = self._make(value)
        return text


# Directives of `strftime` that depend on the day alone, and those that need the hour, too.
_OF_DAY = frozenset("YymdjbBaAFGVUWuwCeD")
_OF_HOUR = _OF_DAY | frozenset("HIp")


def _key_of_times(form: str) -> Callable[[datetime], Any]:
    """Return a function to the part of a time that its text in this format depends on."""
    directives = set(re.findall("%[-_0^#]?(.)", form))
    if directives <= _OF_DAY:
        return datetime.date
    if directives <= _OF_HOUR:
        return lambda time: (time.date(), time.hour)
    return lambda time: time


def _formatted(time: datetime, form: str) -> str:
    """Return a time by the directives of `strftime`, with years of at least four digits."""
    if time.year < 1000:  # glibc writes these without zeros
        years = {
            "%Y": f"{time.year:04}",
            "%F": f"{time.year:04}-%m-%d",
            "%G": f"{time.isocalendar().year:04}",
        }
        form = re.sub("%[%YFG]", lambda found: years.get(found[0], found[0]), form)
    return time.strftime(form)


class _FieldTexts:
    """The texts of the values of one field."""

    def __init__(self, of: PartitionField) -> None:
        self._field = of
        self._strings = _Texts(self._text_of_string)
        self._key = _key_of_times(of.format or "")
        self._times: dict[Any, str] = {}  # by the part of a time that its text depends on

    def texts(self, values: Sequence[Json]) -> Iterable[str]:
        """Return the text of each value."""
        if self._field.format is not None:
            return map(self._time, values)
        if set(map(type, values)) == {str}:
            return map(self._strings.__getitem__, values)
        return map(self._text, values)

    def _text(self, value: Json) -> str:
        if value is None:
            return NULL
        if type(value) is str:
            return self._strings[value]
        return safe_text(encode(value).decode(), self._field.most_bytes)

    def _text_of_string(self, value: str) -> str:
        return safe_text(value, self._field.most_bytes)

    def _time(self, value: Json) -> str:
        if value is None:
            return NULL
        try:
            time = to_time(value)
        except (ValueError, TypeError, OverflowError):
            return INVALID
        key = self._key(time)
        if (text := self._times.get(key)) is None:
            parts = _formatted(time, self._field.format or "").split("/")
            text = "/".join(safe_text(part, self._field.most_bytes) for part in parts)
            if len(self._times) >= _MAX_TEXTS:
                self._times.clear()
            self._times[key] = text
        return text


class PartitionNamer:
    """Names the partitions of records: their paths below the root of the layout."""

    def __init__(self, layout: PartitionLayout) -> None:
        fields = layout.fields
        self._texts = [_FieldTexts(one) for one in fields]
        self._columns = _Columns([one.path for one in fields])
        self._pattern = "".join(
            part.replace("%", "%%") if isinstance(part, str) else "%s" for part in layout.parts
        )

    def names(self, rows: Sequence[Any]) -> list[str]:
        """Return the name of each row's partition. Rows are values or `msgspec.Raw`."""
        columns = self._columns.read(rows)
        texts = [one.texts(column) for one, column in zip(self._texts, columns, strict=True)]
        return list(map(self._pattern.__mod__, zip(*texts, strict=True)))


class _Columns:
    """Reads the values of fields from many records, as one sequence for each field."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._getters = [make_field_getter(path) for path in paths]
        self._decode: Callable[[bytes], list[Any]] | None = None
        tokens = [parse_path(path) for path in paths]
        if all(len(names) == 1 for names in tokens):
            # The parser skips all other fields.
            attributes = {names[0]: f"f{number}" for number, names in enumerate(tokens)}
            record = defstruct(
                "Record",
                [
                    (attribute, Any, field(name=name, default=None))
                    for name, attribute in attributes.items()
                ],
                gc=False,
            )
            self._decode = Decoder(list[record]).decode  # type: ignore[valid-type]  # made above
            self._attributes = [attrgetter(attributes[names[0]]) for names in tokens]

    def read(self, rows: Sequence[Any]) -> list[Sequence[Json]]:
        """Return the values of each field. A row that is no object has none."""
        if self._decode is not None and set(map(type, rows)) == {Raw}:
            try:
                records = self._decode(b"[%b]" % b",".join(map(bytes, rows)))
            except ValidationError:  # a row is no object
                pass
            else:
                return [list(map(get, records)) for get in self._attributes]
        values = [decode(row) if type(row) is Raw else row for row in rows]
        records = [value if type(value) is dict else {} for value in values]
        return [list(map(get, records)) for get in self._getters]
