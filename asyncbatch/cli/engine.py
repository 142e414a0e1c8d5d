"""The option of an engine made into settings."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from asyncbatch.settings import DaskSettings

_ADDRESS = r"([a-z]+://)?[^/@]+:[0-9]+"


def dask_settings(engine: str, scheduler: str | None) -> DaskSettings | None:
    """Return those of the cluster that works, if one does. Raises BadParameter."""
    if engine == "local":
        if scheduler is not None:
            raise typer.BadParameter("--scheduler is for --engine dask")
        return None
    if scheduler is not None and not re.fullmatch(_ADDRESS, scheduler, re.ASCII):
        raise typer.BadParameter(f"--scheduler {scheduler}: write tcp://HOST:8786")
    try:
        importlib.import_module("asyncbatch.executors.dask_engine")
    except ImportError as error:
        raise typer.BadParameter(
            "--engine dask needs an extra, here and on the workers: "
            f"pip install 'asyncbatch[dask]' ({error})"
        ) from None
    from asyncbatch.settings import DaskSettings  # noqa: PLC0415 - --help stays quick

    return DaskSettings(scheduler)
