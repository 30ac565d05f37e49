"""From a `where` to the rows that it lets through; a version never changes, so the last answers are kept."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from storage.catalog import Catalog
from storage.errors import SearchParameterError
from storage.spec import Collection

from .errors import FilterError
from .predicate import check_predicate

_KEPT = 16
_TIMEOUT_SECONDS = 10.0

RowIds = NDArray[np.int64]


class Filters:
    """Evaluates predicates on the catalog of one version. Safe from many threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self._kept: OrderedDict[tuple[Collection, str], RowIds] = OrderedDict()

    def columns(self, collection: Collection) -> list[str]:
        """Return the names of the columns that a predicate may use."""
        return [name for name, _ in self._catalog.columns(collection)]

    def rows(self, collection: Collection, where: str) -> RowIds:
        """Return the ids of the rows that pass, ascending, as a read-only int64 array.

        Raises:
            FilterError: `where` is not one condition on the columns of this collection, or it cannot be evaluated.
        """
        key = (collection, where)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        rows = self._evaluate(collection, where)
        with self._lock:
            self._kept[key] = rows
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return rows

    def _evaluate(self, collection: Collection, where: str) -> RowIds:
        try:
            check_predicate(where, self.columns(collection), self._catalog.parse_predicate)
            rows = self._catalog.filter_rows(collection, where, timeout=_TIMEOUT_SECONDS)
        except SearchParameterError as error:
            raise FilterError(str(error)) from error
        rows.setflags(write=False)
        return rows
