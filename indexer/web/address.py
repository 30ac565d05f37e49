"""Which network addresses a URL of a corpus may lead to.

A corpus is written by others. Without this check one line of it could make this machine ask its own services, those of
the intranet, or a cloud's metadata server (server-side request forgery). What is reachable is listed, not what is
forbidden: IPv6 has one block of global unicast addresses, and IPv4's exceptions are those of the IANA registry.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

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
            "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/4",
            "240.0.0.0/4",
            # Azure answers its machines with metadata from here, though the block is public.
            "168.63.129.16/32",
        ),
    )
)  # fmt: skip
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
