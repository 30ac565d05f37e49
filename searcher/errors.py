"""The errors of searching.

TwinlensError                    storage/errors.py
`-- SearchError                  a search that cannot be answered as it was asked
    |-- QueryError               the query itself: a missing file, a wrong dim, a vector of zeros
    |-- FilterError              a `where` that is no predicate on the columns of the catalog
    |-- EncoderMismatchError     the encoder given is not the one that made the index
    |-- EvaluationError          an index that cannot be scored as it was asked: no pairs, no such split, k too large
    `-- SearcherClosedError      the searcher was closed
"""

from storage.errors import TwinlensError


class SearchError(TwinlensError):
    """A search that cannot be answered as it was asked."""


class QueryError(SearchError):
    """The query cannot be turned into a vector of this index."""


class FilterError(SearchError):
    """A `where` that is not one predicate on the columns of the catalog."""


class EncoderMismatchError(SearchError):
    """The encoder given is not the one that made the index, so its vectors cannot be compared."""


class EvaluationError(SearchError):
    """The index cannot be scored as it was asked."""


class SearcherClosedError(SearchError):
    """The searcher was closed."""
