"""Profiles in words: lines of text, and the cells of a field, which reports also show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from asyncbatch.cli.display.text import make_grid, plain_grid
from asyncbatch.core.units import format_count, printable
from asyncbatch.formats.decoder import encode as encode_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.transforms.profile.summary import FieldSummary, ProfileSummary

_SHOWN_NAMES = 12  # of a shape
_ORDERED = ("date", "date-time", "local-time")  # formats of texts whose order is of interest


def profile_lines(summary: ProfileSummary, width: int | None) -> Iterator[str]:
    """Yield the lines of a profile, of at most `width` characters if it is given."""
    if summary.fields:
        fields = format_count(len(summary.fields), "field")
        yield f"{format_count(summary.records, 'record')}, {fields}"
        grid = make_grid(list(map(field_cells, summary.fields)), width)
        yield from plain_grid(grid)
        if grid.hidden_columns:
            yield f"  ... and {', '.join(grid.hidden_columns)} (in a wider terminal, or -o json)"
        yield ""
    if summary.max_fields_exceeded:
        yield "More than --max-fields: objects with many fields are shown as maps"
        yield ""
    if summary.keys:
        yield f"Candidate keys: {', '.join(map(printable, summary.keys))}"
        yield ""
    yield from _shape_lines(summary)
    if summary.different_files:
        yield "Files that differ from the rest"
        for one in summary.different_files:
            more = f" (and {format_count(one.files - 1, 'more file')})" if one.files > 1 else ""
            yield f"  {printable(one.file)}{more}: {printable('; '.join(one.reasons))}"
        yield ""


def _shape_lines(summary: ProfileSummary) -> Iterator[str]:
    if len(summary.shapes) + bool(summary.other_shapes) < 2:
        return
    yield "Shapes of records"
    for shape in summary.shapes:
        yield f"  {shape.records:>9,}  {shape.type}{shape_names(shape.names)}"
    if summary.other_shapes:
        yield f"  {summary.other_shapes:>9,}  of other shapes"
    yield ""


def shape_names(names: list[str]) -> str:
    """Return the first names of the fields of a shape, after a colon; nothing without any."""
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f": {', '.join(map(printable, names[:_SHOWN_NAMES]))}{more}"


def field_cells(row: FieldSummary) -> dict[str, str]:
    """Return the cells of a field by the names of their columns: the same for all fields."""
    types = "|".join(row.types)
    if row.is_map:
        about = "" if row.keys_are_exact else "~"
        types = f"map of {about}{row.keys:,} keys" if isinstance(row.keys, int) else "map"
    formats = row.formats or {}
    return {
        "field": row.path,
        "type": types,
        "present": _share(row.presence),
        "null": _share(row.null_share) if row.null_share else "",
        "distinct": _distinct(row),
        "range": _range(row),
        "format": ", ".join(map(_format, formats, formats.values())),
        "examples": _examples(row),
    }


def _distinct(row: FieldSummary) -> str:
    if not isinstance(row.distinct, int):
        return ""
    about = "" if row.distinct_is_exact else "~"
    return f"{about}{row.distinct:,}{' unique' if row.unique is True else ''}"


def _range(row: FieldSummary) -> str:
    """Return the smallest and largest value, or the lengths of texts and arrays."""
    parts = []
    if row.min_items is not UNSET:
        parts.append(f"{_span(row.min_items, row.max_items)} items")
    has_order = isinstance(row.formats, dict) and any(name in _ORDERED for name in row.formats)
    if row.min is not UNSET and (not isinstance(row.min, str) or has_order):
        parts.append(_span(row.min, row.max))
    elif row.min_length is not UNSET:
        parts.append(f"{_span(row.min_length, row.max_length)} characters")
    return ", ".join(parts)


def _span(low: Any, high: Any) -> str:
    return _value(low) if low == high else f"{_value(low)} to {_value(high)}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else encode_value(value).decode()


def _format(name: str, share: float) -> str:
    return name if share == 1 else f"{name} {_share(share)}"


def _share(share: float) -> str:
    """Return a share in percent; never 100% or 0% for a share that is not."""
    percent = 100 * share
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{min(max(percent, 0.1), 99.9):.1f}%"
    return f"{percent:.0f}%"


def _examples(row: FieldSummary) -> str:
    """Return the frequent values with their counts, or a few values."""
    if isinstance(row.top, list):
        return ", ".join(f"{_value(one.value)} ({one.count:,})" for one in row.top)
    return ", ".join(map(_value, row.examples or ()))
