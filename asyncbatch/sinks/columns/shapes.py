"""The shapes of nested values: whether STRUCT and LIST hold the arrays and objects of a column."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.sinks.columns.block import is_exact, is_int64
from asyncbatch.sinks.databases.sql import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json

# An object with more keys is a map whose keys are data (DuckDB draws the line at 200, too).
MAX_KEYS = 200
MAX_DEPTH = 20  # DuckDB reads about 30 lists in each other
# Parts of all shapes of a file. Each has a column chunk in each row group: 6,000 took 150 MB.
MAX_PARTS = 1_000
_SLICE_CHARS = 1024 * 1024  # JSON texts that are decoded together: 16 times as much as values

# "json": arrays and objects that stay JSON text, "mixed": values for which there is no type.
ShapeKind = Literal[
    "null", "boolean", "integer", "real", "text", "object", "list", "json", "mixed"
]  # fmt: skip
_KINDS: dict[type, ShapeKind] = {
    bool: "boolean",
    int: "integer",
    float: "real",
    str: "text",
    dict: "object",
    list: "list",
}
_NESTED = {"object", "list", "json"}


class Shape(Struct, omit_defaults=True):
    """The shape that all values have which were added, in whatever order and however divided.

    An object or array stays JSON text ("json") unless STRUCT or LIST hold exactly its values. That
    fails if a key or the elements have values of several types, if a key is both null and missing
    (both are NULL), or if the keys are many or alike.
    """

    kind: ShapeKind = "null"
    has_null: bool = False
    is_optional: bool = False  # whether objects lack this key
    has_large: bool = False  # whether an integer is not exact as a double
    keys: dict[str, Shape] = {}
    items: Shape | None = None

    @property
    def is_text(self) -> bool:
        """Whether the arrays and objects stay JSON text. Parquet has no STRUCT without keys."""
        return self.kind == "json" or (self.kind == "object" and not self.keys)

    @property
    def has_texts(self) -> bool:
        """Whether arrays or objects anywhere in the values stay JSON text."""
        return self.is_text or any(part.has_texts for part in self._parts())

    def add_texts(self, texts: Sequence[str | None]) -> None:
        """Add the values of a column, given as JSON texts of arrays and objects."""
        for part in slices(texts):
            if self.kind != "json":
                self.add(decode_texts(part))
        if self.count() > MAX_PARTS:
            self.become("json")

    def add(self, values: Sequence[Json], depth: int = 0) -> None:
        """Add JSON values. Each step handles all values of a part, which is fast."""
        types = set(map(type, values))
        if type(None) in types:
            self.has_null = True
            types.discard(type(None))
            values = [value for value in values if value is not None]
        if not types:
            return
        kind = self.kind
        for found in types:
            kind = _joined(kind, _KINDS[found])
        if kind in ("integer", "real"):
            integers = [v for v in values if type(v) is int] if float in types else values
            self.has_large = self.has_large or not is_exact(integers)
            if not is_int64(integers) or (kind == "real" and self.has_large):
                kind = "mixed"
        elif kind in _NESTED and depth == MAX_DEPTH:
            kind = "json"
        had_objects = self.kind == "object"
        self.become(kind)
        if kind == "object":
            self._add_objects(values, depth + 1, had_objects=had_objects)
        elif kind == "list":
            self.items = self.items or Shape()
            self.items.add(list(chain.from_iterable(values)), depth + 1)
            if self.items.kind == "mixed":
                self.become("json")

    def _add_objects(
        self, objects: Sequence[dict[str, Json]], depth: int, *, had_objects: bool
    ) -> None:
        layouts = set(map(tuple, objects))
        there = dict.fromkeys(chain.from_iterable(layouts if len(layouts) == 1 else objects))
        names = list(self.keys | there)
        if len(names) > len(self.keys) and not _are_field_names(names):
            self.become("json")
            return
        columns: dict[str, Sequence[Json]] = {}
        if len(layouts) == 1:  # fast: all objects have the same keys in the same order
            columns = dict(zip(there, zip(*map(dict.values, objects), strict=True), strict=True))
        for name in names:
            key = self.keys.get(name)
            if key is None:
                key = self.keys[name] = Shape(is_optional=had_objects)
            values = columns.get(name)
            if values is None:
                values = [one[name] for one in objects if name in one]
                key.is_optional = key.is_optional or len(values) < len(objects)
            key.add(values, depth)
            if key.kind == "mixed" or (key.is_optional and key.has_null):
                self.become("json")
                return

    def become(self, kind: ShapeKind) -> None:
        """Change the kind, and forget the parts that another kind had."""
        self.kind = kind
        if kind != "object":
            self.keys = {}
        if kind != "list":
            self.items = None

    def _parts(self) -> Iterable[Shape]:
        return self.keys.values() if self.items is None else (self.items,)

    def count(self) -> int:
        """Return the number of parts, this one included."""
        return 1 + sum(part.count() for part in self._parts())

    def fit(self, values: list[Any]) -> list[Any]:
        """Return values with texts in place of the arrays and objects that stay JSON text.

        Changes the values.
        """
        if self.is_text:
            return [None if value is None else encode(value).decode() for value in values]
        present = [value for value in values if value is not None]
        for name, key in self.keys.items():
            if key.has_texts:
                holders = [value for value in present if name in value]
                for holder, value in zip(
                    holders, key.fit([one[name] for one in holders]), strict=True
                ):
                    holder[name] = value
        if self.items is not None and self.items.has_texts:
            for value in present:
                value[:] = self.items.fit(value)
        return values

    def restored(self, value: Any) -> Json:
        """Return a JSON value as it was before Parquet held it. Changes the value."""
        if value is None:
            return None
        if self.is_text:
            return decode(value)
        if self.items is not None:
            return [self.items.restored(item) for item in value]
        if self.keys:
            return {
                name: key.restored(value[name])
                for name, key in self.keys.items()
                if value[name] is not None or not key.is_optional
            }
        return value


def limit_parts(shapes: Iterable[Shape]) -> None:
    """Let the columns with the most parts be text, until the file has no more than `MAX_PARTS`.

    For the end, when the shapes depend on all values, and not on the order in which they came.
    """
    left = MAX_PARTS
    for shape in sorted(shapes, key=Shape.count):
        left -= shape.count()
        if left < 0:
            shape.become("json")


def decode_texts(texts: Sequence[str | None]) -> list[Json]:
    """Return the values of JSON texts."""
    return [None if text is None else decode(text) for text in texts]


def slices(texts: Sequence[str | None]) -> Iterator[Sequence[str | None]]:
    """Yield consecutive texts, as many as may be decoded together."""
    start = size = 0
    for place, text in enumerate(texts):
        size += len(text) if text else 1
        if size >= _SLICE_CHARS:
            yield texts[start : place + 1]
            start, size = place + 1, 0
    if start < len(texts):
        yield texts[start:]


def _joined(one: ShapeKind, other: ShapeKind) -> ShapeKind:
    """Return the kind of values of both kinds."""
    if one in ("null", other):
        return other
    both = {one, other}
    if both == {"integer", "real"}:
        return "real"
    return "json" if both <= _NESTED else "mixed"


def _are_field_names(names: Sequence[str]) -> bool:
    """Whether a STRUCT can have these fields: DuckDB ignores their case, and ends at a NUL."""
    return (
        len(names) <= MAX_KEYS
        and all(name and "\0" not in name for name in names)
        and len(set(map(fold, names))) == len(names)
    )
