"""Check where a server is: on this machine, unless the user permits otherwise.

In: the URL of a server.  Out: the same URL with an address instead of its name, so that the address that was checked is
the one that is contacted.  Refuses every host but `localhost` and the addresses of this machine, before anything is
sent; names are not looked up either, because a look-up reveals to others what is wanted here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from localmel.errors import UsageError

_LOCALHOST = "127.0.0.1"
_EXAMPLE = f'url = "http://{_LOCALHOST}:8000/v1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server that may be contacted."""

    url: str
    "Without a final slash; the host is an address where the server is on this machine."
    host: str
    "Name and port as the user wrote them, for the Host header."


def checked_place(url: str, *, allow_remote: bool) -> Place:
    """Check a URL and pin its host.  Raises UsageError for a malformed one, or one that leaves this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is not the URL of a server ({error})", hint=_EXAMPLE) from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not the plain URL of a server", hint=_EXAMPLE)
    path = parts.path.rstrip("/")
    if allow_remote:
        return Place(url=urlunsplit((parts.scheme, parts.netloc, path, "", "")), host=parts.netloc)
    address = _LOCALHOST if host.rstrip(".").lower() == "localhost" else _address(host)
    if address is None or not _is_here(address):
        why = "leads off this machine" if address else f"leads to {host!r}, and names are not looked up"
        raise UsageError(
            f"{url} {why}: pictures and texts would leave it",
            hint=f"{_EXAMPLE}, or --allow-remote (in a profile allow_remote = true)",
        )
    pinned = f"[{address}]" if ":" in address else address
    netloc = f"{pinned}:{port}" if port else pinned
    return Place(url=urlunsplit((parts.scheme, netloc, path, "", "")), host=parts.netloc)


def _address(host: str) -> str | None:
    """Return the host as an address in canonical form; None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _is_here(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
