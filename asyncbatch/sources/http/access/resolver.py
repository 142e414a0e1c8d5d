"""Host names that lead to this machine or its network only if they did so from the start."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

# The metadata services of clouds that have no link-local address.
_METADATA_ADDRESSES = {
    ip_address(text)
    for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
}


class StableResolver(AbstractResolver):
    """Resolves host names; a name of another machine never becomes one of this machine.

    Whoever controls the name of an API could else let it lead to a service that only this machine
    reaches: on loopback, a link-local address, or the metadata service of a cloud. A name that led
    there at first, such as `localhost`, is one that the user chose.
    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        """Prepare. Without `resolver`, that of the system is used, in threads."""
        self._resolver = resolver or ThreadedResolver()
        self._hosts_elsewhere: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`. Raises OSError."""
        found = await self._resolver.resolve(host, port, family)
        elsewhere = [one for one in found if not is_special_address(one["host"])]
        if elsewhere:
            self._hosts_elsewhere.add(host)
            return elsewhere
        if found and host in self._hosts_elsewhere:
            raise OSError(
                f"{host} leads to {found[0]['host']} now, an address of this machine or its network"
            )
        return found

    async def close(self) -> None:
        await self._resolver.close()


def is_special_address(text: str) -> bool:
    """Whether an address is loopback, link-local, unspecified, or a metadata service."""
    address = ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address in _METADATA_ADDRESSES
    )
