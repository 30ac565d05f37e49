"""The errors of searching.

TwinlensError                    storage/errors.py
`-- SearchError                  a search that cannot be answered
    |-- ParameterError           an option, or a name that is none: a wrong type, out of range
    |-- QueryError               the query itself: a missing file, a wrong dim, a vector of zeros
    |   `-- ItemNotFoundError    an item to search with, or to show, that the index has not
    |-- FilterError              a `where` that is no predicate on the columns of the catalog
    |-- EncoderMismatchError     the encoder given is not the one that made the index
    |-- ClientError              a server that does not answer, or refuses
    |-- EvaluationError          an index that cannot be scored: no pairs, no such split, k too large
    `-- SearcherClosedError      the searcher was closed
"""

from storage.errors import TwinlensError


class SearchError(TwinlensError):
    """A search that cannot be answered."""


class ParameterError(SearchError):
    """An option of a search is of the wrong type or out of range, or there is none of that name."""

    exit_code = 2


class QueryError(SearchError):
    """The query cannot be turned into a vector of this index."""


class ItemNotFoundError(QueryError):
    """The index has no item of this id."""


class FilterError(SearchError):
    """A `where` that is not one predicate on the columns of the catalog."""


class EncoderMismatchError(SearchError):
    """The encoder given is not the one that made the index, so its vectors cannot be compared."""


class ClientError(SearchError):
    """A server does not answer, or answers that it will not; the message holds what it says.

    Attributes:
        status: The status of HTTP, e.g. 404 for an item that is not there; None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EvaluationError(SearchError):
    """The index cannot be scored with these options."""


class SearcherClosedError(SearchError):
    """The searcher was closed."""
