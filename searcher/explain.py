"""Why an image was found: the nearest of its captions to the query."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.partners import Partners

from .hits import Explanation, Hits
from .query_encoder import Vectors

if TYPE_CHECKING:
    from storage.version import IndexVersion


class Explainer:
    """Explains hits of an open version; the pairs are read on first use. Safe from many threads."""

    def __init__(self, version: IndexVersion) -> None:
        """Explain hits in an open version, which stays its owner's."""
        self._version = version
        self._lock = threading.Lock()
        self._partners: Partners | None = None

    def explained(self, results: Sequence[Hits], queries: Vectors) -> list[Hits]:
        """Return the hits of queries (n, dim) with an explanation of each image that has captions, 16 looked at."""
        if not results or results[0].collection != "images" or "texts" not in self._version.manifest.collections:
            return list(results)
        return [self._explained(hits, query) for hits, query in zip(results, queries, strict=True)]

    def _explained(self, hits: Hits, query: NDArray[np.float32]) -> Hits:
        positions, rows = self._captions().among(hits.row_ids)
        if not len(rows):
            return hits
        scores = np.minimum(self._version.vectors("texts").gather_float32(rows) @ query, 1.0)
        # Ascending, so that the best of each position is the last that is written.
        order = np.argsort(scores, kind="stable")
        best = dict(zip(positions[order].tolist(), order.tolist(), strict=True))
        wanted = np.array(sorted({int(rows[one]) for one in best.values()}), dtype=np.int64)
        entries = self._version.catalog.rows("texts", wanted, ["item_id", "caption"])
        texts = dict(zip(wanted.tolist(), entries, strict=True))
        explanations = {
            position: Explanation(score=max(float(scores[one]), -1.0), **texts[int(rows[one])])
            for position, one in best.items()
        }
        return replace(
            hits, hits=tuple(replace(hit, explanation=explanations.get(number)) for number, hit in enumerate(hits.hits))
        )

    def _captions(self) -> Partners:
        with self._lock:
            if self._partners is None:
                pairs = self._version.catalog.table("pairs")
                self._partners = Partners.of(pairs, "images", self._version.vectors("images").rows)
            return self._partners
