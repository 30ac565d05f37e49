"""Top-k search in an index: by text, by image or by vector, with filters and measured recall.

`Searcher.open` opens an index; `Hits` is what comes back. `evaluate_index` scores an index against its own pairs.
Importing this package imports no torch; a name is imported when it is first used, so that a search loads no evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .compose import Query
    from .errors import EncoderMismatchError, FilterError, QueryError, SearchError
    from .evaluation.evaluate_index import EvaluateOptions, evaluate_index
    from .hits import Hit, Hits
    from .query import QueryPart
    from .request import SearchRequest
    from .searcher import Searcher

__all__ = [
    "EncoderMismatchError",
    "EvaluateOptions",
    "FilterError",
    "Hit",
    "Hits",
    "Query",
    "QueryError",
    "QueryPart",
    "SearchError",
    "SearchRequest",
    "Searcher",
    "evaluate_index",
]

_MODULES = {
    "EncoderMismatchError": ".errors",
    "EvaluateOptions": ".evaluation.evaluate_index",
    "FilterError": ".errors",
    "Hit": ".hits",
    "Hits": ".hits",
    "QueryError": ".errors",
    "Query": ".compose",
    "QueryPart": ".query",
    "SearchError": ".errors",
    "SearchRequest": ".request",
    "Searcher": ".searcher",
    "evaluate_index": ".evaluation.evaluate_index",
}
__getattr__ = lazy_exports(__name__, _MODULES)
