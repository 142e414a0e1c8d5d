"""Proxies, as the environment names them: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.

aiohttp's own reading of the environment also takes passwords from ~/.netrc, which nobody
configured for these requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from yarl import URL


class Proxies:
    """The environment's, as they are now."""

    def __init__(self) -> None:
        self._proxies = getproxies()

    def proxy_for(self, url: URL) -> str | None:
        """Return the proxy through which `url` is to be asked, if any."""
        proxy = self._proxies.get(url.scheme)
        if proxy is None or proxy_bypass(url.authority):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"
