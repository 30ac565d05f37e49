"""What a URL says, read strictly: whatever two programs could read differently is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urlsplit

from ...errors import ContentError

MAX_URL = 4096
_PORTS = {"http": 80, "https": 443}
_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
# The last label of a name is never a number (RFC 3696): such hosts are IPv4 addresses in an odd form.
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")
# What may stand in a path or query as it is; `%` too, since the URL may be quoted already.
_SAFE = "%/:=&?~+!$,;'@()*[]-._|"
# At least two letters: `C:/` is a place on Windows.
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A URL in parts: `host` is a plain name or address without brackets, `target` the path with its query."""

    scheme: str
    host: str
    port: int
    target: str


def parse_url(url: str) -> WebAddress:
    """Read an http or https URL.

    Raises:
        ContentError: `bad_url`: another scheme, credentials, an odd host or port, control characters, or too long.
    """
    shown = repr(without_credentials(url)[:200])
    if len(url) > MAX_URL:
        raise ContentError("bad_url", f"{shown} has {len(url)} characters, at most {MAX_URL} are read")
    if any("\ud800" <= letter <= "\udfff" for letter in url):
        raise ContentError("bad_url", f"{shown} holds bytes that are not UTF-8; quote them as %XX")
    if "\\" in url or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise ContentError("bad_url", f"{shown} holds a space, a control character or a backslash; quote it as %XX")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise ContentError("bad_url", f"{shown} is no URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise ContentError("bad_url", f"{shown} is neither http nor https")
    if "@" in parts.netloc:
        raise ContentError("bad_url", f"{shown} holds credentials, which are never sent; take them out")
    if port == 0 or parts.netloc.endswith(":"):
        raise ContentError("bad_url", f"{shown} has no usable port")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return WebAddress(parts.scheme, _host(host, "[" in parts.netloc, shown), port or _PORTS[parts.scheme], target)


def is_remote(corpus: object) -> bool:
    """Whether a corpus is named by a protocol of fsspec, such as `s3://bucket/photos` or `zip://*::photos.zip`."""
    return isinstance(corpus, str) and _REMOTE.match(corpus) is not None


def without_credentials(url: str) -> str:
    """The URL with `***` where a user and a password stand, so that no message and no catalog holds them."""
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*:[/\\]*)[^/?#]*@", r"\1***@", url)


def _host(host: str, bracketed: bool, shown: str) -> str:
    if bracketed:
        try:
            address = IPv6Address(host)
        except ValueError as error:
            raise ContentError("bad_url", f"{shown} has no IPv6 address in its brackets") from error
        if address.scope_id is not None:
            raise ContentError("bad_url", f"{shown} names a network zone")
        return str(address)
    try:
        # Full-width digits and dots become plain ones here, before anything is decided.
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ContentError("bad_url", f"{shown} has a host that is no name: {host[:80]!r}") from error
    if not _LABELS.fullmatch(name) or len(name) > 253:
        raise ContentError("bad_url", f"{shown} has a host that is no name: {name[:80]!r}")
    if _NUMBER.fullmatch(name.rstrip(".").rpartition(".")[2]) and not _is_plain_v4(name):
        raise ContentError("bad_url", f"{shown} has an address in an odd form; write it as four decimal numbers")
    return name


def _is_plain_v4(name: str) -> bool:
    try:
        return str(IPv4Address(name)) == name
    except ValueError:
        return False


Address = IPv4Address | IPv6Address

_GLOBAL_V6 = IPv6Network("2000::/3")
# RFC 6052: how hosts without IPv4 reach IPv4 ones; the last 32 bits are the address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")
# IANA special-purpose registries, as far as the versions of `ipaddress` differ or call them global.
_CLOSED_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_CLOSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Azure answers its machines with metadata from here, though the block is public.
            "168.63.129.16/32",
        ),
    )
)
# RFC 5214: an interface id that wraps an IPv4 address, of whatever network.
_ISATAP = 0x00005EFE
_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(IPv6Network, ("::1/128", "fc00::/7")),
)
# Where clouds answer with keys and roles; in fc00::/7, so it would else count as the intranet.
_METADATA_V6 = IPv6Address("fd00:ec2::254")


def is_public(text: str) -> bool:
    """Whether an address, as the resolver gives it, is one of the open internet."""
    address = _unwrapped(text)
    if isinstance(address, IPv6Address):
        is_open = address in _GLOBAL_V6 and not any(address in block for block in _CLOSED_V6)
        return is_open and (int(address) >> 32 & 0xFDFFFFFF) != _ISATAP
    return address is not None and address.is_global and not any(address in block for block in _CLOSED_V4)


def is_intranet(text: str) -> bool:
    """Whether an address is this machine's or one of a private network; link-local ones, as of metadata, are not."""
    address = _unwrapped(text)
    if address is None or address == _METADATA_V6:
        return False
    return any(address in block for block in _PRIVATE)


def _unwrapped(text: str) -> Address | None:
    """The address that is reached in the end: of a mapped or translated one the IPv4 address within."""
    try:
        address = ip_address(text)
    except ValueError:
        return None  # with a zone such as fe80::1%eth0, or none at all
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address
