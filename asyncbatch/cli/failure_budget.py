"""`--max-failures` and `--fail-fast`: what of the inputs may fail."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from asyncbatch.budget import FailureBudget


def failure_budget(max_failures: str | None, *, fail_fast: bool = False) -> "FailureBudget | None":
    """Return what the options allow; None if they were not given."""
    from asyncbatch.budget import FailureBudget  # noqa: PLC0415 - --help stays quick

    if fail_fast and max_failures is not None:
        raise typer.BadParameter("--fail-fast is --max-failures 0: give one of them")
    if fail_fast:
        return FailureBudget(0)
    try:
        return None if max_failures is None else FailureBudget.parse(max_failures)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-failures") from None
