"""The windower for a kind of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.windows.panes import FixedWindows
from asyncbatch.windows.sessions import SessionWindows

if TYPE_CHECKING:
    from asyncbatch.windows.aggregates import Recipe
    from asyncbatch.windows.events import Windower
    from asyncbatch.windows.keys import Key, KeyFields
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.watermark import Watermark


def make_windower(
    spec: WindowSpec,
    recipe: Recipe,
    keys: KeyFields,
    watermark: Watermark,
    *,
    max_keys: int,
    overflow: Key | None = None,
) -> Windower:
    """Return what puts events into such windows, of at most `max_keys` keys at a time.

    Further keys become `overflow`; without one they are a TooManyKeysError.
    """
    make = SessionWindows if spec.kind == "session" else FixedWindows
    return make(spec, recipe, keys, watermark, max_keys=max_keys, overflow=overflow)
