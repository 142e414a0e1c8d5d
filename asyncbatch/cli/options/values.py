"""Conversion of single option values: engine, failure budget, memory, flags of pipeline files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

from asyncbatch.core.secrets import redact_address
from asyncbatch.core.system import install_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from asyncbatch.config.memory import MemoryPlan
    from asyncbatch.config.options.control import ConfigFlags
    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.core.settings import DaskSettings
    from asyncbatch.core.tally import FailureBudget

_ADDRESS_PATTERN = r"([a-z]+://)?[^/@]+:[0-9]+"


def dask_settings(engine: str, scheduler: str | None) -> DaskSettings | None:
    """Return the settings of the cluster, or None for the local engine.

    Raises BadParameter.
    """
    if engine == "local":
        if scheduler is not None:
            raise typer.BadParameter("--scheduler needs --engine dask")
        return None
    if scheduler is not None and not re.fullmatch(_ADDRESS_PATTERN, scheduler, re.ASCII):
        raise typer.BadParameter(f"--scheduler {redact_address(scheduler)}: write tcp://HOST:8786")
    try:
        import asyncbatch.workers.dask.engine  # noqa: F401 - a check; the run imports it later
    except ImportError as error:
        raise typer.BadParameter(
            "--engine dask needs an extra, here and on the workers: "
            f"{install_command('dask')} ({error})"
        ) from None
    from asyncbatch.core.settings import DaskSettings

    return DaskSettings(scheduler)


def memory_plan(limit: int | None, workers: int | None, **job: bool) -> MemoryPlan | None:
    """Return the memory plan for `limit` bytes, or None without any limit.

    If `limit` is None, the limit of the container counts. `job` holds arguments of `plan_memory`.
    Raises UsageError if the given limit is too low.
    """
    from asyncbatch.core.system import memory_limit

    given = limit
    if limit is None and (limit := memory_limit()) is None:
        return None
    from asyncbatch.config.memory import (
        USABLE_SHARE,
        min_memory,
        plan_memory,
    )
    from asyncbatch.core.system import usable_cpus

    count = usable_cpus() if workers is None else workers
    if given is None:
        limit = max(int(limit * USABLE_SHARE), min_memory(**job))
    return plan_memory(limit, count, **job)


def has_library(to: str | None) -> bool:
    """Whether DuckDB, Arrow or an upload writes the target: these need extra memory."""
    name = to or ""
    return name.startswith(("duckdb:", "s3:", "gs:", "az:")) or name.endswith(".parquet")


def failure_budget(max_failures: str | None, *, fail_fast: bool = False) -> FailureBudget | None:
    """Return the failure budget of the options, or None without them."""
    from asyncbatch.core.tally import FailureBudget

    if fail_fast and max_failures is not None:
        raise typer.BadParameter("--fail-fast means --max-failures 0: give only one of them")
    if fail_fast:
        return FailureBudget(0)
    try:
        return None if max_failures is None else FailureBudget.parse(max_failures)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-failures") from None


def command_policy(config: ConfigFlags) -> CommandPolicy:
    """Return whether `${cmd:…}` may run commands."""
    from asyncbatch.config.secret_sources import CommandPolicy

    return CommandPolicy(config.allow_commands, config.command_timeout)


def replacing_flags(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the flags that replace values of a pipeline file.

    Raises BadParameter if --set also replaces one of these values.
    """
    from asyncbatch.config.pipeline_file.load import FLAG_KEYS

    given = {name: value for name, value in values.items() if value is not None}
    replaced = {text.partition("=")[0].strip() for text in overrides}
    for name in given:
        key = ".".join(FLAG_KEYS.get(name, ()))
        if key in replaced:
            flag = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{flag} and --set {key} are the same value: give one of them")
    return given
