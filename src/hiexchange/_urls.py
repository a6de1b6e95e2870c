"""URLs: which may be visited at all, whose origin they have, how they are shown. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urljoin, urlsplit

from hiexchange.errors import PolicyViolation

# Hosts that serve capability URLs for every cloud; visited only without a token.
PUBLIC_STORAGE = (".amazonaws.com", ".blob.core.windows.net", ".storage.googleapis.com", "storage.googleapis.com")
BLANKS = re.compile(r"[\s\x00-\x1f\x7f]")


def check_url(url: str, *, allow_http: bool = False) -> None:
    """Refuse URLs that are not plain https (http on this machine), or that hold a user name.

    Raises:
        PolicyViolation: With the redacted URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise PolicyViolation("not a URL that can be visited", where=redact(url)) from None
    if BLANKS.search(url):
        raise PolicyViolation("a URL holds no blanks", where=redact(url))
    if parts.username is not None or parts.password is not None:
        # httpx would send it as Basic credentials even with auth=None.
        raise PolicyViolation("a URL with a user name is refused", where=redact(url))
    local = host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and (local or allow_http))):
        raise PolicyViolation(
            "only https URLs are visited", where=redact(url), hint="http is allowed on this machine, or by allow_http"
        )


def join(base: str, url: str) -> str:
    """Return ``url`` as seen from ``base``; one that cannot be read is left for :func:`check_url` to refuse."""
    try:
        return urljoin(base, url)
    except ValueError:
        return url


def origin(url: str) -> str:
    """Return scheme, host and port, which is what a token is bound to; nothing for a URL that cannot be read."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return ""
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def host_of(url: str) -> str:
    """Return the lower-case host name; nothing for a URL that cannot be read."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def redact(url: str) -> str:
    """Return ``url`` without user name and query values: links to files are capabilities."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable URL)"
    start = f"{parts.scheme}://" if parts.scheme else ""
    return f"{start}{host}{port}{parts.path}" + ("?…" if parts.query else "")


def is_private(host: str) -> bool:
    """Say whether a host is an address of this machine or a private network."""
    if host == "localhost" or host.endswith((".localhost", ".internal")):
        return True
    if not is_address(host):
        return False
    return not ipaddress.ip_address(host).is_global


def is_address(host: str) -> bool:
    """Say whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
