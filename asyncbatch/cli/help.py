"""Plain `--help` in sections: with rich markup it would take twice the time to appear."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

_UNTITLED = "Other"


class SectionedCommand(TyperCommand):
    """A command whose options are listed under the panel that each one names."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer moves these types about
        """Write the arguments, then a section for each panel, in order of appearance."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            is_argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None) or _UNTITLED
            sections.setdefault("Arguments" if is_argument else panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
