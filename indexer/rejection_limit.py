"""How many rejected items a build puts up with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from .config import BuildConfig
from .errors import RejectedError


@dataclass(frozen=True, kw_only=True)
class RejectionLimit:
    """Counts the rejected rows of shards by reason, up to `max_rejected` of `items`."""

    config: BuildConfig
    items: int
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        """Add the rows of a shard.

        Raises:
            RejectedError: With these, more items were rejected than the caller allows.
        """
        self.reasons.update(table.column("reason").drop_null().to_pylist())
        if self.reasons.total() <= self.config.rejection_limit(self.items):
            return
        example = table.filter(pc.is_valid(table.column("reason"))).slice(0, 1).to_pylist()
        first = f", for example {example[0]['uri']!r}: {example[0]['detail']}" if example else ""
        raise RejectedError(
            f"{self.reasons.total()} items were rejected, more than --max-rejected {self._asked} allows{first}; "
            "mend them or raise the limit. What was encoded is kept"
        )

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield shards as they come, each once it has been added."""
        for table in tables:
            self.add(table)
            yield table

    @property
    def _asked(self) -> str:
        """The limit as it is written on the command line."""
        limit = self.config.max_rejected or 0
        return f"{limit:.4g}" if limit == 0 or limit >= 1 else f"{limit * 100:.4g}%"
