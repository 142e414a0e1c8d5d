"""The sections of a profile in the HTML report: fields, keys, shapes, files that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.cli.display.profile_lines import field_cells, shape_names
from asyncbatch.cli.render.html_parts import Cell, section, shown, table
from asyncbatch.core.units import format_count
from asyncbatch.transforms.profile.summary import ProfileSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct

    from asyncbatch.transforms.profile.summary import FieldSummary

_HEADS = ["field", ".type", "#present", "#null", "#distinct", "range", ".format", "examples"]


def profile_sections(summary: Struct) -> Iterator[str]:
    """Yield the sections of the summary of a profile, as far as there is something to show."""
    assert isinstance(summary, ProfileSummary)
    if summary.fields:
        yield section("fields", "Fields", "".join(_field_parts(summary)))
    if summary.shapes:
        shapes: list[list[Any]] = [
            [one.type, one.records, shape_names(one.names).removeprefix(": ")]
            for one in summary.shapes
        ]
        if summary.other_shapes:
            shapes.append(["other shapes", summary.other_shapes, ""])
        text = table("The most frequent first", [".type", "#records", "fields"], shapes)
        yield section("shapes", "Shapes of records", text)
    if summary.different_files:
        files = [[one.file, one.files, "; ".join(one.reasons)] for one in summary.different_files]
        text = table("The rarest first", ["file", "#files of this shape", "reasons"], files)
        yield section("different-files", "Files that differ from the rest", text)


def _field_parts(summary: ProfileSummary) -> Iterator[str]:
    fields = format_count(len(summary.fields), "field")
    yield f"<p>{format_count(summary.records, 'record')}, {fields}.</p>\n"
    if summary.max_fields_exceeded:
        yield "<p>More than --max-fields: objects with many fields are shown as maps.</p>\n"
    if summary.keys:
        keys = ", ".join(f"<code>{shown(key)}</code>" for key in summary.keys)
        yield f"<p>Candidate keys: {keys}</p>\n"
    yield table(
        "Below each object, the most frequent first", _HEADS, list(map(_row, summary.fields))
    )


def _row(one: FieldSummary) -> list[Any]:
    cells = field_cells(one)
    distinct = one.distinct if isinstance(one.distinct, int) else None
    orders = {"present": one.presence, "null": one.null_share, "distinct": distinct}
    return [Cell(text, orders.get(name)) for name, text in cells.items()]
