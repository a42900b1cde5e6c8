"""Where a server may stand: on this machine, unless that is said otherwise.

In: the URL of a server.  Out: the same URL with the address that its name was found to have, so that what is checked is
what is spoken to.  Refuses, before anything is sent, a name or an address that leads off this machine."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from localmel.errors import UsageError

_EXAMPLE = 'url = "http://127.0.0.1:8000/v1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server that may be spoken to."""

    url: str
    "Without a slash at its end; its host is an address where the server is on this machine."
    host: str
    "What the user wrote, for the Host header: name and port."


def checked_place(url: str, *, allow_remote: bool) -> Place:
    """Raises UsageError for a URL that is none, or leads off this machine without permission."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no URL of a server ({error})", hint=_EXAMPLE) from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no plain URL of a server", hint=_EXAMPLE)
    path = parts.path.rstrip("/")
    if allow_remote:
        return Place(url=urlunsplit((parts.scheme, parts.netloc, path, "", "")), host=parts.netloc)
    addresses = _addresses(host, port or (443 if parts.scheme == "https" else 80), url)
    for address in addresses:
        if not _is_here(address):
            raise UsageError(
                f"{url} leads off this machine ({host} is {address}): pictures and texts would leave it",
                hint=f"{_EXAMPLE}, or allow_remote = true",
            )
    pinned = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    netloc = f"{pinned}:{port}" if port else pinned
    return Place(url=urlunsplit((parts.scheme, netloc, path, "", "")), host=parts.netloc)


def _addresses(host: str, port: int, url: str) -> list[str]:
    """Every address of a host, the order kept."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{url}: {host!r} has no address ({error})", hint=_EXAMPLE) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_here(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
