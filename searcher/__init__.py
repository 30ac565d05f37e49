"""Top-k search in an index: by text, by picture or by vector, with filters and measured recall.

`Searcher.open` opens an index; `Hits` is what comes back. Importing this package imports no torch.
"""

from .errors import EncoderMismatchError, FilterError, QueryError, SearchError
from .hits import Hit, Hits
from .params import SearchParams
from .search import Searcher

__all__ = [
    "EncoderMismatchError",
    "FilterError",
    "Hit",
    "Hits",
    "QueryError",
    "SearchError",
    "SearchParams",
    "Searcher",
]
