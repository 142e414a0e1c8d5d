"""Numbers in Prometheus' text form, as its node exporter reads them from a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Gauge


class Gauges:
    """Gauges called `PREFIX_…`, each with a `name`: no two files of a folder may tell one series.

    Raises UsageError if the library is missing.
    """

    def __init__(self, prefix: str, name: str) -> None:
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 - only if asked for
        except ImportError:
            raise UsageError(
                "metrics need the library prometheus-client: pip install 'asyncbatch[metrics]'"
            ) from None
        self._prefix, self._name = prefix, name
        self._registry = CollectorRegistry()

    def tell(self, what: str, help_: str, value: float, **labels: str) -> None:
        """Tell one number."""
        self._gauge(what, help_, *labels).labels(self._name, *labels.values()).set(value)

    def tell_each(self, what: str, help_: str, values: Mapping[str, int]) -> None:
        """Tell a number for each result."""
        gauge = self._gauge(what, help_, "result")
        for result, value in values.items():
            gauge.labels(self._name, result).set(value)

    def text(self) -> bytes:
        """Return the document."""
        from prometheus_client import generate_latest  # noqa: PLC0415 - see above

        text: bytes = generate_latest(self._registry)
        return text

    def _gauge(self, what: str, help_: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge  # noqa: PLC0415 - see above

        return Gauge(f"{self._prefix}_{what}", help_, ("name", *labels), registry=self._registry)
