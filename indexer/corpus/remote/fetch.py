"""Fetching one image: every hop is resolved, checked, and reached at the very address that was checked."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from typing import Any
from urllib.parse import urljoin

from ...errors import ContentError
from ..item import LazyBytes
from .url import WebAddress, is_intranet, is_public, parse_url

# Servers are waited for, not computed with: more threads than cores; more of them is no kindness to one server.
FETCHES = 16

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 64 * 1024
_HEADERS = {"User-Agent": "twinlens", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}
# What a server may make of a connection; LookupError and the rest come from malformed headers.
_BROKEN = (OSError, http.client.HTTPException, ValueError, LookupError)

Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """What fetching one image may cost.

    Attributes:
        seconds: From the first connection to the last byte, redirects included; 20 suits slow servers, and a lower
            value lets a corpus of dead links pass sooner. The system's resolver keeps its own limit for names.
        redirects: Hops after the first address.
        allow_private: Also reach this machine and private networks, for those who index an intranet. Link-local,
            multicast and reserved addresses stay closed.
    """

    seconds: float = 20.0
    redirects: int = 5
    allow_private: bool = False


def system_addresses(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system resolves it."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches images within limits; safe from many threads. Proxies of the environment are not used.

    Attributes:
        limits: Time, redirects, and whether private addresses may be reached.
        resolve: From a host and a port to its addresses.
    """

    limits: WebLimits = field(default_factory=WebLimits)
    resolve: Resolve = system_addresses

    def fetch(self, url: str, max_bytes: int) -> bytes:
        """Return what stands at a URL.

        Raises:
            ContentError: `bad_url`, `refused_address`, `unreachable`, `timeout`, `http_status`, `too_many_redirects`,
                `too_large`, `truncated` or `http_error`.
        """
        deadline = monotonic() + self.limits.seconds
        for _ in range(self.limits.redirects + 1):
            answer = self._hop(parse_url(url), max_bytes, deadline)
            if isinstance(answer, bytes):
                return answer
            url = _joined(url, answer)
        raise ContentError("too_many_redirects", f"more than {self.limits.redirects} redirects")

    def _hop(self, address: WebAddress, max_bytes: int, deadline: float) -> bytes | str:
        """The content, or where it is said to be."""
        ips = self._checked(address)
        sock = _connected(ips, address, deadline)
        with _closed_at(sock, deadline) as over:
            try:
                answer = _ask(sock, address, max_bytes)
            except _BROKEN as error:
                if over.is_set() or isinstance(error, TimeoutError):
                    raise _too_slow(address) from error
                raise ContentError("http_error", f"{address.host} answered badly: {_words(error)}") from error
            except ContentError as error:
                if over.is_set():
                    raise _too_slow(address) from error
                raise
            if over.is_set():
                raise _too_slow(address)  # what came is only the first part
            return answer

    def _checked(self, address: WebAddress) -> list[str]:
        try:
            ips = self.resolve(address.host, address.port)
        except (OSError, UnicodeError) as error:
            raise ContentError("unreachable", f"the host {address.host!r} has no address: {_words(error)}") from error
        for ip in ips:
            if not is_public(ip) and not (self.limits.allow_private and is_intranet(ip)):
                hint = "" if self.limits.allow_private or not is_intranet(ip) else "; allow it with --allow-private"
                raise ContentError("refused_address", f"{address.host!r} is at {ip}, not on the open internet{hint}")
        return ips


def _connected(ips: list[str], address: WebAddress, deadline: float) -> socket.socket:
    """A connection to the first of the addresses that answers; they are numbers, so nothing is resolved again."""
    problem: OSError = OSError("no address")
    for ip in ips:
        left = deadline - monotonic()
        if left <= 0:
            raise _too_slow(address)
        try:
            return socket.create_connection((ip, address.port), timeout=left)
        except TimeoutError as error:
            raise _too_slow(address) from error
        except OSError as error:
            problem = error
    raise ContentError("unreachable", f"{address.host} cannot be reached: {_words(problem)}") from problem


@contextmanager
def _closed_at(sock: socket.socket, deadline: float) -> Iterator[threading.Event]:
    """Cut the connection at `deadline`, however slowly the other side sends; the event says that it was cut."""
    over = threading.Event()
    # A second handle of the same connection: TLS takes the first one over.
    handle = socket.socket(fileno=os.dup(sock.fileno()))

    def cut() -> None:
        over.set()
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()
        timer.join()
        handle.close()
        sock.close()


def _ask(sock: socket.socket, address: WebAddress, max_bytes: int) -> bytes | str:
    connection = http.client.HTTPConnection(address.host, address.port)
    if address.scheme == "https":
        sock = tls().wrap_socket(sock, server_hostname=address.host)
        connection.default_port = http.client.HTTPS_PORT
    # The name goes into Host and SNI; the connection is the one that was made to the checked address.
    connection.sock = sock
    try:
        connection.request("GET", address.target, headers=_HEADERS)
        with connection.getresponse() as response:
            return _answer(response, max_bytes)
    finally:
        connection.close()


def _answer(response: http.client.HTTPResponse, max_bytes: int) -> bytes | str:
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        return location
    if response.status != http.client.OK:
        raise ContentError("http_status", f"the server answered {response.status}")
    expected = response.length
    if expected is not None and expected > max_bytes:
        raise ContentError("too_large", f"the image has more bytes than the limit: {expected} > {max_bytes}")
    data = bytearray()
    while chunk := response.read(_CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise ContentError("too_large", f"the image has more bytes than the limit of {max_bytes}")
    if expected is not None and len(data) != expected:
        raise ContentError("truncated", f"{len(data)} bytes of {expected} came")
    return bytes(data)


def _joined(url: str, location: str) -> str:
    try:
        # Servers give headers as Latin-1; most mean UTF-8.
        text = location.encode("latin-1").decode("utf-8", "replace")
        return urljoin(url, text)
    except (ValueError, UnicodeError) as error:
        raise ContentError("bad_url", f"a redirect leads to no URL: {location[:200]!r}") from error


def _too_slow(address: WebAddress) -> ContentError:
    return ContentError("timeout", f"{address.host} took more than the time limit")


@cache
def tls() -> ssl.SSLContext:
    """The system's certificates, read once."""
    return ssl.create_default_context()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@dataclass(frozen=True, slots=True)
class WebImage(LazyBytes):
    """What stands at a URL. The URL stands for the image: an update fetches only those that it does not know."""

    url: str
    fetcher: Fetcher

    def read(self, max_bytes: int) -> bytes:
        """Fetch the image."""
        return self.fetcher.fetch(self.url, max_bytes)

    @property
    def identity(self) -> Any:
        """The URL, and what may be reached."""
        return ["url", self.url, self.fetcher.limits.allow_private]

    def is_unchanged(self, file_bytes: int | None, mtime_ns: int | None) -> bool:
        """True, since nothing is known of an image on the web without fetching it."""
        return True
