"""One exchange with a server: where it is, what it is shown, how long it is waited for, and what went wrong."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from http.client import HTTPMessage
from typing import Any
from urllib.parse import urlsplit

from ..errors import ClientError, SearchError
from .messages import Message

_LONGEST_ANSWER = 64 * 1024 * 1024
_LONGEST_MESSAGE = 600
# Answers after which the same may be asked again, where the server says when.
_AGAIN = (429, 503)
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A server to ask, and how. Safe from many threads: every exchange has a connection of its own.

    Attributes:
        url: Its address, e.g. `http://127.0.0.1:8000/`, or a prefix behind a proxy.
        token: What it asks callers to show; None for nothing.
        timeout: Seconds to wait for a connection, and for each part of an answer.
        retries: How often a server that is full, and says when to come back, is asked again.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    retries: int = 2

    def __post_init__(self) -> None:
        """Refuse what is no address.

        Raises:
            SearchError: It is none; the message says what one looks like.
        """
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment or not self.url.isascii() or not self.url.isprintable():
            raise SearchError(
                f"{self.url[:200]!r} is no address of a server; give e.g. http://127.0.0.1:8000/, as `twinlens serve` "
                "prints it"
            )
        if parts.username is not None:
            raise SearchError("the address of the server holds a name or password; give the token by TWINLENS_TOKEN")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise SearchError("the token has characters that no server takes; give ASCII without spaces")
        if not 0 < self.timeout <= 3_600 or not 0 <= self.retries <= 100:
            raise SearchError(
                f"timeout={self.timeout!r} must be above 0 and at most 3,600 seconds, and retries={self.retries!r} "
                "from 0 to 100"
            )

    def ask(self, message: Message) -> Any:
        """Return the JSON of an answer.

        Raises:
            ClientError: Nothing answers there, or it refuses; the message says which.
        """
        for left in range(self.retries, -1, -1):
            status, headers, data = self._exchanged(message)
            pause = _pause(headers.get("Retry-After")) if status in _AGAIN and left else None
            if pause is None:
                break
            time.sleep(pause)
        answer = _parsed(data)
        if status != 200:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise ClientError(self._refusal(status, said), status)
        return answer

    def unreadable(self, error: Exception) -> ClientError:
        """Return the error of an answer that is none of a server of ours."""
        return ClientError(
            f"the answer of {self.url!r} cannot be read ({type(error).__name__}: {error}); is it a `twinlens "
            "serve` of this release?"
        )

    def _exchanged(self, message: Message) -> tuple[int, HTTPMessage, bytes]:
        parts = urlsplit(self.url)
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = made(str(parts.hostname), parts.port, timeout=self.timeout)
        headers = {"Accept": "application/json"} | ({"Content-Type": message.kind} if message.kind else {})
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(message.method, f"{parts.path.rstrip('/')}/{message.target}", message.body, headers)
            answer = connection.getresponse()
            data = answer.read(_LONGEST_ANSWER + 1)
        except TimeoutError as error:
            raise ClientError(
                f"{self.url!r} did not answer within {self.timeout:g} seconds; try again, or give more by --timeout"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(self._unreached(error)) from error
        finally:
            connection.close()
        if len(data) > _LONGEST_ANSWER:
            raise ClientError(f"{self.url!r} answered more than {_LONGEST_ANSWER} bytes; ask for fewer hits by -k")
        return answer.status, answer.headers, data

    def _unreached(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLError):
            return f"{self.url!r} does not speak TLS as it should: {error.reason or error}; check http or https"
        if isinstance(error, socket.gaierror):
            return f"there is no host {urlsplit(self.url).hostname!r}: {error.strerror}; check the address"
        if isinstance(error, http.client.HTTPException):
            return f"{self.url!r} does not answer in HTTP ({type(error).__name__}); check the address"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"no server answers at {self.url!r}: {reason}; start one by `twinlens serve INDEX`, or check the address"

    def _refusal(self, status: int, said: Any) -> str:
        if not isinstance(said, str):
            return f"{self.url!r} answered {status} and is no `twinlens serve`; check the address"
        line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(said.split()))
        hint = "; give the token by TWINLENS_TOKEN" if status == 401 else ""
        return f"{self.url!r} answered {status}: {line[:_LONGEST_MESSAGE]}{hint}"


def _pause(retry_after: str | None) -> float | None:
    """Return the seconds that a server wants to be left alone; None where it says nothing that is understood."""
    if retry_after is None or not re.fullmatch(r"[0-9]{1,6}", retry_after.strip()):
        return None
    return min(float(retry_after), _LONGEST_PAUSE)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
