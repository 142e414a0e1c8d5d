"""The log of the package: events of the logger `asyncbatch`, for programs and for `--log-file`.

Import it where an event happens, not at the top: `logging` takes longer to load than a short run
has to spare.
"""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("asyncbatch")
LOGGER.addHandler(logging.NullHandler())  # otherwise Python prints warnings on stderr


def log_event(level: int, event: str, message: str, **fields: Any) -> None:
    """Log an event by its name. `fields` are figures beside the message, without secrets.

    Handlers find them in `record.event` and `record.fields`. Safe for several threads.
    """
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s", message, extra={"event": event, "fields": fields})


def log_warning(event: str, message: str, **fields: Any) -> None:
    """Log an event that the work survives."""
    log_event(logging.WARNING, event, message, **fields)
