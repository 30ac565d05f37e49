"""Top-k search in an index: by text, by image or by vector, with filters and measured recall.

`Searcher.open` opens an index; `Hits` is what comes back. `evaluate_index` scores an index against its own pairs.
Importing this package imports no torch.
"""

from .errors import EncoderMismatchError, FilterError, QueryError, SearchError
from .evaluation.evaluate_index import EvaluateOptions, evaluate_index
from .hits import Hit, Hits
from .request import QueryPart, SearchRequest
from .searcher import Searcher

__all__ = [
    "EncoderMismatchError",
    "EvaluateOptions",
    "FilterError",
    "Hit",
    "Hits",
    "QueryError",
    "QueryPart",
    "SearchError",
    "SearchRequest",
    "Searcher",
    "evaluate_index",
]
