"""Origins: where requests may go, and where credentials may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from asyncbatch.http.redaction import HARMLESS_HEADERS, basic_value
from asyncbatch.http.settings import BasicAuth, BearerAuth, HeaderAuth, QueryAuth

if TYPE_CHECKING:
    from asyncbatch.http.settings import HttpSettings

_SHOWN_LINK = 200  # characters


class RefusedLinkError(Exception):
    """A link or redirect leads where nobody allowed to go; the message says where."""


class Borders:
    """What `settings` let pass from the origin of a URL that they name to others."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._allowed = {URL(origin).origin() for origin in settings.allow_origins}
        self._homes = {URL(url).origin() for url in settings.urls}
        self._harmless = {
            name: value.reveal()
            for name, value in settings.headers.items()
            if name.lower() in HARMLESS_HEADERS
        }
        self._all = {name: value.reveal() for name, value in settings.headers.items()}
        self._all |= _credentials(settings)

    def is_home(self, url: URL) -> bool:
        """Whether the settings name the origin of `url`."""
        return url.origin() in self._homes

    def resolve(self, base: URL, link: str) -> URL:
        """Return the URL for which `link` stands in the answer of `base`, bare (see there).

        Raises RefusedLinkError if it stands for none.
        """
        try:
            url = self.bare(base.join(URL(link)))
            url.origin()
        except ValueError:  # a port that is none, a scheme without a host
            shown = link[:_SHOWN_LINK]
            raise RefusedLinkError(f"leads to {shown!r}, which is no URL to go to") from None
        return url

    def check(self, url: URL, home: URL) -> None:
        """Raise RefusedLinkError if a URL of origin `home` may not lead to `url`."""
        if url.scheme not in ("http", "https"):
            raise RefusedLinkError(f"leads to {url.scheme}:, which is neither http nor https")
        if (origin := url.origin()) != home and origin not in self._allowed:
            raise RefusedLinkError(
                f"leads to another origin, {origin}, which allow_origins does not name"
            )

    def bare(self, url: URL) -> URL:
        """Return `url` without a user, a password, a fragment and the key that requests get."""
        bare = url.with_user(None).with_fragment(None)
        auth = self._settings.auth
        if isinstance(auth, QueryAuth) and auth.name in bare.query:
            bare = bare.without_query_params(auth.name)
        return bare

    def request(self, url: URL, home: URL) -> tuple[URL, dict[str, str]]:
        """Return the URL to ask for, and the headers, with credentials if they belong there."""
        if url.origin() != home:
            return url, self._harmless
        auth = self._settings.auth
        if isinstance(auth, QueryAuth):
            return url.update_query({auth.name: auth.value.reveal()}), self._all
        return url, self._all


def _credentials(settings: HttpSettings) -> dict[str, str]:
    match settings.auth:
        case BearerAuth(token=token):
            return {"Authorization": f"Bearer {token.reveal()}"}
        case BasicAuth() as auth:
            return {"Authorization": f"Basic {basic_value(auth)}"}
        case HeaderAuth(name=name, value=value):
            return {name: value.reveal()}
        case _:
            return {}
