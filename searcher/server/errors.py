"""The errors of the server.

SearchError                      searcher/errors.py
|-- ServerError                  the server cannot start as it was asked
`-- RefusedError                 one request that is answered with a status of 400 or above
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SearchError


class ServerError(SearchError):
    """The server cannot start as it was asked."""


class RefusedError(SearchError):
    """One request cannot be answered as it was asked.

    Attributes:
        status: The HTTP status, 400 to 599.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
