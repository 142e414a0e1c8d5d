"""The address of a PostgreSQL server, with the parameters that libpq takes."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_plus, urlsplit, urlunsplit

from asyncbatch.core.secrets import redact_address
from asyncbatch.errors import UsageError

CONNECT_SECONDS = 10.0  # how long to wait for a new connection, by default
# The parameters of libpq that the client library obeys.
_OBEYED = frozenset(
    ("host", "port", "dbname", "database", "user", "password", "passfile", "service", "sslmode",
     "sslcert", "sslkey", "sslrootcert", "sslnegotiation", "sslcrl", "sslpassword",
     "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname",
     "gsslib")
)  # fmt: skip
# Those that it does not know, and that change nothing about the rows.
_PASSED_OVER = frozenset(
    ("hostaddr", "require_auth", "channel_binding", "client_encoding", "keepalives",
     "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
     "replication", "gssencmode", "gssdelegation", "sslcompression", "sslkeylogfile",
     "sslcertmode", "sslcrldir", "sslsni", "requirepeer", "load_balance_hosts",
     "min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key",
     "servicefile")
)  # fmt: skip
# Values that ask for nothing that a connection of the client library lacks.
_HARMLESS = {
    ("channel_binding", "prefer"), ("channel_binding", "disable"), ("gssencmode", "prefer"),
    ("gssencmode", "disable"), ("client_encoding", "auto"), ("client_encoding", "utf8"),
    ("client_encoding", "utf-8"), ("load_balance_hosts", "disable"), ("sslcompression", "0"),
    ("sslsni", "1"), ("gssdelegation", "0"), ("sslcertmode", "allow"),
}  # fmt: skip
_YES = ("true", "1", "yes", "on")
# A setting in the parameter `options`: -c name=value, or --name=value.
_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|\S)*)\s*")


class ServerAddress(NamedTuple):
    """An address, taken apart."""

    dsn: str  # for the client library, which knows all its parameters
    settings: dict[str, str]  # of the sessions
    connect_seconds: float | None  # how long to wait for a connection; None: no limit
    # Whether the address says that transactions of one session run in different sessions of the
    # server, as behind PgBouncer.
    is_pooled: bool
    ignored: list[str]  # the parameters that are not obeyed

    @classmethod
    def parse(cls, address: str) -> ServerAddress:
        """Return the parts of an address. Raises UsageError for values that nothing can obey."""
        parts = _split(address)
        kept: list[str] = []
        settings: dict[str, str] = {}
        ignored: list[str] = []
        seconds: float | None = CONNECT_SECONDS
        is_pooled, fallback = False, None
        for pair in filter(None, parts.query.split("&")):
            name, value = map(unquote_plus, pair.partition("=")[::2])
            if name in _OBEYED:
                kept.append(pair)
            elif name == "connect_timeout":
                seconds = _seconds(value)
            elif name == "fallback_application_name":
                fallback = value
            elif name == "pgbouncer":
                is_pooled = value.lower() in _YES
            elif name == "requiressl":
                kept += ["sslmode=require"] if value == "1" and "sslmode" not in parts.query else []
            elif (name, value) == ("gssencmode", "require"):
                raise UsageError("gssencmode=require: encryption by GSSAPI is not available")
            elif name in _PASSED_OVER:
                ignored += [] if (name, value.lower()) in _HARMLESS else [name]
            elif name == "options" and (found := _options(value)) is not None:
                settings |= found
            else:
                settings[name] = value
        if fallback is not None:
            settings.setdefault("application_name", fallback)
        dsn = urlunsplit(parts._replace(query="&".join(kept)))
        if not parts.netloc and not dsn.startswith(f"{parts.scheme}://"):
            dsn = dsn.replace(":", "://", 1)  # urlunsplit drops the slashes of an empty host
        return cls(dsn, settings, seconds, is_pooled, ignored)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # its message may quote the password
        raise UsageError(f"{redact_address(address)} is not the address of a server") from None


def _seconds(value: str) -> float | None:
    """Return the seconds of `connect_timeout`; 0 and less mean no limit. Raises UsageError."""
    try:
        seconds = int(value)
    except ValueError:
        raise UsageError(f"connect_timeout={value}: write whole seconds") from None
    return float(seconds) if seconds > 0 else None


def _options(text: str) -> dict[str, str] | None:
    """Return the settings in the parameter `options`; None if there is something else in it."""
    settings, at = {}, len(text) - len(text.lstrip())
    while at < len(text):
        if not (found := _OPTION.match(text, at)):
            return None
        settings[found[1].replace("-", "_")] = re.sub(r"\\(.)", r"\1", found[2])
        at = found.end()
    return settings
