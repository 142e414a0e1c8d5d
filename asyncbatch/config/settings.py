"""Settings from groups of options, which a command line or a pipeline file gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.config.options.streams import ARRIVAL
from asyncbatch.core.retry import Retries
from asyncbatch.core.settings import FileWorkSettings, Sizes, StoreSettings
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection, Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.config.options.inputs import FileOptions
    from asyncbatch.config.options.streams import SimulatorOptions, WindowOptions
    from asyncbatch.config.options.target import SinkOptions
    from asyncbatch.core.secrets import Secret
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.live.simulator import Simulator
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec


def inputs_of(options: FileOptions, paths: Sequence[str], retries: Retries | None = None) -> Inputs:
    """Return the inputs of a source of files. Raises UsageError."""
    return Inputs(
        tuple(paths),
        options.files_from,
        options.null,
        Selection(
            options.pattern or DEFAULT_PATTERNS,
            options.exclude,
            options.hidden,
            options.follow_symlinks,
            options.gitignore,
        ),
        options.limit,
        options.root,
        None if options.shard is None else Shard.parse(options.shard),
        stores_of(
            options.endpoint,
            retries,
            anonymous=options.anonymous,
            allow_origins=options.allow_origins,
        ),
        options.max_decompressed_size,
        options.max_window,
    )


def file_settings(
    options: FileOptions,
    *,
    sizes: Sizes = Sizes(),  # noqa: B008 - it is frozen
    retries: Retries | None = None,
    read_ahead: int | None = None,
) -> FileWorkSettings:
    """Return the settings for reading files. Raises UsageError."""
    return FileWorkSettings(
        options.format,
        options.max_file_size,
        read_ahead,
        options.max_decompressed_size,
        options.max_window,
        sizes,
        retries or Retries(),
        stores_of(
            options.endpoint,
            retries,
            anonymous=options.anonymous,
            allow_origins=options.allow_origins,
        ),
    )


def stores_of(
    endpoint: Secret | None,
    retries: Retries | None = None,
    *,
    anonymous: bool,
    allow_origins: tuple[str, ...] = (),
) -> StoreSettings:
    """Return the settings of connections to object stores. Raises UsageError."""
    address = None if endpoint is None else endpoint.reveal()
    return StoreSettings.from_options(
        address, retries, anonymous=anonymous, allow_origins=allow_origins
    )


def target_of(options: SinkOptions, to: str, root: str | None, **connection: Any) -> Target:
    """Return the target. Raises UsageError.

    Outputs of a folder are named relative to `root`. `connection` has the fields `server` and
    `stores` of a Target.
    """
    from asyncbatch.sinks.target import Target

    return Target.parse(
        to,
        table=options.table,
        key=options.key,
        mode=options.mode or ("upsert" if options.key else "append"),
        on_delete=options.on_delete,
        max_delete=options.max_delete,
        contract=options.schema_contract,
        override_identity=options.override_identity,
        columns=options.columns,
        csv_safe=options.csv_safe,
        null_value=options.null_value,
        nested=options.nested,
        format=options.format,
        compression=options.compression,
        root=root,
        **connection,
    )


def simulator_of(options: SimulatorOptions, start: int) -> Simulator:
    """Return a simulator whose first event is at `start`, in microseconds since 1970."""
    from asyncbatch.sources.live.simulator import Simulator

    return Simulator(
        start,
        rate=options.rate,
        seed=options.seed,
        users=options.users,
        types=options.types,
        disorder=options.disorder,
    )


def stream_settings(
    options: WindowOptions,
    window: WindowSpec,
    aggregates: tuple[Aggregate, ...],
    **work: Any,
) -> StreamSettings:
    """Return the settings of windows. `work` has further fields of StreamSettings."""
    from asyncbatch.config.job import StreamSettings

    given: dict[str, Any] = {
        "by": options.by,
        "time": None if options.time == ARRIVAL else options.time,
        "unit": options.time_unit,
        "lateness": options.lateness,
        "idle": options.idle_timeout,
        "max_future": options.max_future,
        "max_keys": options.max_keys,
        "overflow_key": options.overflow_key,
    }
    return StreamSettings(window, aggregates, **given | work)
