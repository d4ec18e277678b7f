"""Which URLs may be fetched, and from which address (threat F09). Pure, but for the resolver it is given.

One parser decides what is checked and what is fetched: a URL that two parsers could read differently is refused (CVE-2026-24779).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from autoglm_ops.errors import Refused, TryAgain, UsageError

Resolver = Callable[[str, int], Iterable[str]]
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# Nothing that needs decoding or cleaning: no user, no backslash, no brackets, no trailing dot, no control or wide character, no fragment.
_URL = re.compile(rf"(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?(/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)")
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_PUBLIC_6 = ipaddress.ip_network("2000::/3")  # all that was ever given out
# Inside it, or missed by `is_global`: what leads elsewhere, or to an IPv4 address in disguise.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip


class Target(NamedTuple):
    """A URL taken apart. `path` begins with a slash and holds the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """What files are called by: the host and the path, without the query (it may hold a key)."""
        return self.host + self.path.partition("?")[0]


def parse(url: str, hosts: tuple[str, ...]) -> Target:
    """The target of `url`. Raises UsageError when it is not plainly written, Refused when its host is not one of `hosts`."""
    found = _URL.fullmatch(url)
    if not found or len(found[2]) > 253:
        raise UsageError(
            f"{_shown(url)} is not a URL that is read: https://host/path in lower-case ASCII, no user, no fragment"
        )
    scheme, host, port, path = found.groups()
    number = int(port) if port else {"http": 80, "https": 443}[scheme]
    if number > 65535:
        raise UsageError(f"{_shown(url)} has port {number}; ports end at 65535")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and not _is_dotted(host):
        raise UsageError(f"{_shown(url)} writes an address in an unusual way; write four decimal numbers, or a name")
    if host not in hosts:
        raise Refused(
            f"{_shown(url)}: the host {host!r} is not on the list of allowed hosts ({', '.join(hosts) or 'empty'}); add it to fetch from it",
            ("host-not-allowed",),
        )
    return Target(scheme, host, number, path)


def address_of(target: Target, resolve: Resolver, allow_private: bool = False) -> str:
    """The one address to connect to. Asks `resolve` once; every answer must be public, or none is used.

    Raises TryAgain when the name has no address, Refused when one of them is not public.
    """
    try:
        found = list(resolve(target.host, target.port))
    except OSError as error:
        raise TryAgain(f"the host {target.host!r} has no address now ({error.strerror or error}); try again") from error
    if not found:
        raise TryAgain(f"the host {target.host!r} has no address now; try again")
    for address in found:
        if not allow_private and not is_public(address):
            raise Refused(f"the host {target.host!r} leads to {address}, which is not a public address", ("private-address",))
    return found[0]


def is_public(address: str) -> bool:
    """Whether `address` is one of the open internet: not this machine, a private or a special network, nor a tunnel to one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found not in _PUBLIC_6):
        return False
    return found.is_global and not found.is_multicast and not any(found in network for network in _NEVER)


def _is_dotted(host: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _shown(url: str) -> str:
    """As much of a URL as may stand in a message: no query, no user."""
    return repr(url.partition("?")[0].rpartition("@")[2][:200])
