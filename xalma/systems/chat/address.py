"""An endpoint's address and the secrets that may stand in it: these go to the server alone, over no clear line."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class Address:
    """`url`: scheme, host, port and path, which may be shown and filed; `query` and `user` may hold keys."""

    url: str
    host: str
    query: httpx.QueryParams = field(repr=False)
    user: tuple[str, str] | None = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host == "localhost"
        return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and the server can read what is sent."""
        return self.is_loopback or self.url.startswith("https:")


def parse_address(base_url: str) -> Address:
    """The parts of a base URL. Raises ValueError, which repeats no part of it, where it is none."""
    advice = "write it as https://HOST/v1 or http://localhost:PORT/v1"
    try:
        url = httpx.URL(str(base_url).strip())
        host = url.raw_host.decode("ascii").rstrip(".").lower()
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise ValueError(f"the base URL can't be read: {advice}") from None
    if url.scheme not in ("http", "https") or not _is_host(host) or url.port not in (None, *range(1, 2**16)):
        raise ValueError(f"the base URL has no http:// or https:// with a host and port: {advice}")
    user = (url.username, url.password) if url.userinfo else None
    plain = url.copy_with(username=None, password=None, query=None, fragment=None)
    return Address(str(plain).rstrip("/"), host, url.params, user)


def _is_host(host: str) -> bool:
    if ":" in host:
        return True  # httpx has read it as an address of IPv6
    return len(host) < 254 and bool(re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", host))


def open_client(address: Address, variable: str, timeout_s: float) -> httpx.AsyncClient:
    """A client that sends the key of the environment's `variable`, or the address's own user and password.

    No proxy of the environment stands between here and this machine's own servers.
    Raises ValueError where OpenAI gets no key, where a secret would cross a network in clear, for a key that no header
    takes, and for a proxy that can't be read.
    """
    key = os.environ.get(variable, "").strip()
    if not key and not address.user and address.host.endswith("openai.com"):
        raise ValueError(f"no API key: set the environment variable {variable}")
    if not address.is_private and (key or address.user or address.query):
        what = f"the key in {variable}" if key else "the user or query of the base URL"
        raise ValueError(f"{what} would go to {address.host} unencrypted: use https, or leave it out")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the key in {variable} has characters that a key can't have: set it again")
    try:
        return httpx.AsyncClient(
            auth=httpx.BasicAuth(*address.user) if address.user else None,
            headers={"Authorization": f"Bearer {key}"} if key and not address.user else {},
            params=address.query,
            timeout=timeout_s,
            follow_redirects=False,
            transport=httpx.AsyncHTTPTransport()
            if address.is_loopback
            else None,  # one of ours takes no proxy
        )
    except (httpx.InvalidURL, ValueError):
        raise ValueError(
            "a proxy in the environment can't be used: see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
        ) from None
