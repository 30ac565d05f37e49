"""The errors of the server.

SearchError                      searcher/errors.py
|-- ServerError                  the server cannot start as it was asked
`-- RefusedError                 one request that is answered with a status of 400 or above
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SearchError

RETRY = {"Retry-After": "1"}


class ServerError(SearchError):
    """The server cannot start as it was asked."""


class RefusedError(SearchError):
    """One request cannot be answered as it was asked.

    Attributes:
        status: The HTTP status, 400 to 599.
        headers: Further headers of the answer.
        reason: The limit that was met, as the metrics count it; empty for none of them.
    """

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, *, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.headers = dict(headers or {})


def full(what: str) -> RefusedError:
    """Return the refusal of a server that has enough to do."""
    return RefusedError(503, f"{what}; try again in a second", RETRY, reason="full")
