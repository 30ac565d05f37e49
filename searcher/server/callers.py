"""Who may ask: the name that a request is addressed to, the token that it shows, and the site that it comes from."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from .errors import RefusedError
from .settings import host_name

# Answered whoever asks: whoever watches the server must hear from it.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
# In the scope of a request that a link of another site made.
LINKED = "twinlens.linked"
_ASK_TOKEN = {"WWW-Authenticate": 'Basic realm="twinlens", charset="UTF-8"'}
_OWN_SITES = frozenset({"same-origin", "none"})
_PORTS = {"http": 80, "https": 443}


class Callers:
    """Refuses requests by where they go and where they come from, before anything else is done for them."""

    def __init__(self, hosts: Sequence[str], token: str | None) -> None:
        """Remember who may ask.

        Args:
            hosts: Names that a request may be addressed to; empty for any.
            token: What a caller must show; None lets all in.
        """
        self._hosts = frozenset(hosts)
        self._token = None if token is None else sha256(token.encode()).digest()

    def check(self, scope: Scope, headers: Headers) -> None:
        """Refuse a request that may not be made; mark one that a link of another site made.

        Raises:
            RefusedError: 400 for a malformed host, 421 for another one, 401 without the token, 403 from another site.
        """
        if scope["path"] in OPEN_PATHS:
            return
        self._check_host(headers.getlist("host"))
        if self._token is not None and not self._shown(headers.getlist("authorization")):
            raise RefusedError(
                401,
                "this server wants its token: Authorization: Bearer TOKEN, or as password",
                _ASK_TOKEN,
                reason="token",
            )
        if not _from_here(headers):
            if not _is_link(scope, headers):
                message = "another site sent this request; send it from the server's own page"
                raise RefusedError(403, message, reason="origin")
            scope[LINKED] = True

    def _check_host(self, given: Sequence[str]) -> None:
        if not self._hosts and not given:
            return  # HTTP/1.0 names no host
        name = host_name(given[0], port=True) if len(given) == 1 else None
        if name is None:
            shown = ", ".join(given)[:80]
            raise RefusedError(400, f"the Host header {shown!r} is not one host name; send NAME or NAME:PORT")
        if self._hosts and name not in self._hosts:
            message = f"this server does not answer to the name {given[0][:80]!r}; start it with --allow-host"
            raise RefusedError(421, message, reason="host")

    def _shown(self, given: Sequence[str]) -> bool:
        """Whether a caller has the token; takes as long for a wrong one, whatever is wrong."""
        kind, _, value = (given[0] if len(given) == 1 else "").partition(" ")
        shown = value.strip().encode("latin-1", "replace")
        if kind.lower() == "basic":
            shown = _password(shown)
        elif kind.lower() != "bearer":
            shown = b""
        return hmac.compare_digest(sha256(shown).digest(), self._token or b"")


def _password(given: bytes) -> bytes:
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _from_here(headers: Headers) -> bool:
    """Whether a request comes from this server's own page, or from no page at all.

    Browsers say so themselves, to servers that they reach by TLS or on their own machine; to others they name, at most,
    the page that sends.
    """
    host = headers.get("host", "")
    if not all(_is_origin(origin, host) for origin in headers.getlist("origin")):
        return False
    if sites := headers.getlist("sec-fetch-site"):
        return all(site in _OWN_SITES for site in sites)
    return all(_is_origin(referer, host) for referer in headers.getlist("referer"))


def _is_origin(url: str, host: str) -> bool:
    """Whether an address is on a host, the port included."""
    try:
        one = urlsplit(url)
        other = urlsplit(f"{one.scheme}://{host}")
        usual = _PORTS.get(one.scheme)
        return (one.hostname, one.port or usual) == (other.hostname, other.port or usual) and one.hostname is not None
    except ValueError:
        return False


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Whether somebody followed a link to the page, in a window of its own rather than a frame."""
    if scope["method"] != "GET" or scope["path"] != "/" or "origin" in headers:
        return False
    if "sec-fetch-site" in headers:
        return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return "text/html" in headers.get("accept", "")
