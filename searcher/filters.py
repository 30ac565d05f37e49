"""Filters of a search: from a `where` to the rows that it lets through, the last ones remembered."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from storage.catalog import Catalog
from storage.errors import SearchParameterError
from storage.filtering.own_names import may_name_now
from storage.lru import Lru
from storage.schema import Collection
from storage.where import check_predicate

from .errors import FilterError

_KEPT = 16
_TIMEOUT_SECONDS = 10.0

RowIds = NDArray[np.int64]


class Filters:
    """Evaluates predicates on the catalog of one version, which never changes. Safe from many threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rows: Lru[tuple[Collection, str, int], RowIds] = Lru(_KEPT)

    def columns(self, collection: Collection) -> list[str]:
        """Return the names of the columns that a predicate may use."""
        return [name for name, _ in self._catalog.columns(collection)]

    def __contains__(self, asked: tuple[Collection, str]) -> bool:
        """Whether the rows of a predicate are remembered, so that `rows` takes no time."""
        return _key(*asked) in self._rows

    def rows(self, collection: Collection, where: str, *, hidden: frozenset[str] = frozenset()) -> RowIds:
        """Return the ids of the rows that pass, ascending, as a read-only int64 array.

        Args:
            collection: The collection to filter.
            where: The predicate.
            hidden: Columns that it may not use; what is remembered was checked by the call that brought it.

        Raises:
            FilterError: `where` is not one condition on the columns of this collection, or it cannot be evaluated.
        """
        key = _key(collection, where)
        rows = self._rows.get(key)
        if rows is None:
            rows = self._evaluate(collection, where, hidden)
            self._rows.put(key, rows)
        return rows

    def _evaluate(self, collection: Collection, where: str, hidden: frozenset[str]) -> RowIds:
        columns = [name for name in self.columns(collection) if name not in hidden]
        try:
            check_predicate(where, columns, self._catalog.parse_predicate)
            rows = self._catalog.filter_rows(collection, where, timeout=_TIMEOUT_SECONDS)
        except SearchParameterError as error:
            raise FilterError(str(error)) from error
        rows.setflags(write=False)
        return rows


def _key(collection: Collection, where: str) -> tuple[Collection, str, int]:
    """What rows are remembered by; those of a filter that asks the clock for the minute."""
    return collection, where, int(time.time() // 60) if may_name_now(where) else 0
