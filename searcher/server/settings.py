"""What a server may be told: which index, and how much one request may cost."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ..request import MAX_K
from .errors import ServerError

LogStyle = Literal["off", "text", "json"]
LOG_STYLES: tuple[LogStyle, ...] = get_args(LogStyle)
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 8
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_NAME_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How an index is opened and served.

    Attributes:
        encoder: The spec of the encoder, for an index of ready-made vectors; None for the one that made the index.
        device: Where queries are encoded: `auto`, `cpu`, `cuda`.
        precision: `auto`, `fp32`, `bf16`, `fp16`.
        verify: `full` compares checksums whenever a version is opened, `size` sizes only.
        root: Where the images are, if the corpus was moved; None for where the build read them.
        watch_seconds: How often CURRENT is looked at for a newly published version.
        token: What a caller must show, as a bearer token or as the password of a browser's prompt; None lets all in.
        hosts: Names that a request may be addressed to; empty for any. A page elsewhere that has its own name point at
            this machine is refused by it, which matters most on the loopback interface.
        max_body: Bytes of a request's body, and a sixteenth of all bodies at once. Photographs have 0.1-20 MB.
        max_pixels: Width times height of a query image; a decoded pixel takes 3-4 bytes.
        max_k: Hits that one request may ask for, at most 9,999.
        seconds: How long one request may take, reading its body included.
        grace: Seconds from the signal that ends the server to the end of its process: requests under way are answered,
            a thread that is stuck is left. To outlast every request, more than `seconds`.
        concurrency: Requests under way at once; further ones are answered 503 at once, with `Retry-After`. Each waiting
            one costs a few kilobytes and the length of its body.
        batch: Queries that go through the encoder, or through the index, together.
        wait_ms: How long a query waits for others when others came just before; 0 to 5 is usual. A query that comes
            alone never waits.
        measure_every: One search in so many, by chance, is compared with the exact search while no request is worked
            on; 0 for none. At most a hundredth of the time goes to it, whatever this says. 10 to 100 is usual: of 1,000
            searches 20 leaves 50, enough to see within them that a twentieth of the hits more is missed than was asked.
        access_log: `json` or `text` writes a line for each request to the logger `searcher.server.access`.
        log_queries: Whether those lines hold the texts that are searched with, which are private.
    """

    encoder: str | None = None
    device: str = "auto"
    precision: str = "auto"
    verify: Literal["full", "size"] = "full"
    root: Path | None = None
    watch_seconds: float = 0.5
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = LOOPBACK_HOSTS
    max_body: int = 16 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_k: int = 1_000
    seconds: float = 10.0
    grace: float = 15.0
    concurrency: int = 128
    batch: int = 64
    wait_ms: float = 2.0
    measure_every: int = 20
    access_log: LogStyle = "off"
    log_queries: bool = False

    def __post_init__(self) -> None:
        """Refuse what no server can do.

        Raises:
            ServerError: A value is outside its range; the message names both.
        """
        object.__setattr__(self, "hosts", tuple(_known_host(host) for host in self.hosts))
        for name, most in (
            ("max_body", 1 << 40),
            ("max_pixels", 178_956_970),
            ("max_k", MAX_K - 1),
            ("concurrency", 100_000),
            ("batch", 4_096),
        ):
            _check_range(name, getattr(self, name), 1, most)
        for name, least, longest in (
            ("seconds", 0.05, 3_600),
            ("grace", 0.1, 3_600),
            ("wait_ms", 0, 1_000),
            ("watch_seconds", 0.01, 3_600),
            ("measure_every", 0, 1_000_000),
        ):
            _check_range(name, getattr(self, name), least, longest)
        if self.access_log not in LOG_STYLES:
            raise ServerError(
                f"access_log={self.access_log!r} is no style of a log; give one of {', '.join(LOG_STYLES)}"
            )
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not _plain(self.token)):
            raise ServerError(
                f"the token has {len(self.token)} characters; give {_SHORTEST_TOKEN} or more, of ASCII without spaces"
            )


def host_name(given: str, *, port: bool = False) -> str | None:
    """Return the one spelling of a host's name or address, None for what is neither.

    Lower case, without the dot of the root and without brackets; names of other scripts in ASCII; addresses as short
    as they can be.

    Args:
        given: The name; an IPv6 address in brackets or, without a port, bare.
        port: Whether a port may follow, as in a Host header; it is left out.
    """
    if port:
        match = _NAME_AND_PORT.fullmatch(given)
        if match is None or "%" in given or int(match[2] or 0) > _HIGHEST_PORT:
            return None
        given = match[1]
    bracketed = given.startswith("[") and given.endswith("]")
    try:
        address = ipaddress.ip_address(given[1:-1] if bracketed else given)
        if (port or bracketed) and bracketed != (address.version == 6):
            return None
        return address.compressed.partition("%")[0]
    except ValueError:
        pass
    if port and not given.isascii():
        return None
    try:
        ascii_name = given if given.isascii() else given.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return ascii_name.lower().removesuffix(".") if _NAME.fullmatch(ascii_name) else None


def _known_host(given: str) -> str:
    name = host_name(given)
    if name is None:
        raise ServerError(f"{given[:80]!r} is no name of a host; give a name or an address without a port")
    return name


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # false for NaN too
        raise ServerError(f"{name}={value!r} must be from {least:g} to {most:,}")


def _plain(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token
