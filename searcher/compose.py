"""Composed queries: several weighted parts, wanted and unwanted ones, as one vector that is searched like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from storage.schema import Collection, Modality

from .errors import QueryError
from .query import QueryPart, ResolvedQuery, image_part, item_part, text_part, vector_part

_SMALLEST = 1e-6

# How much of a wanted part one unwanted part takes away. "A without B" over 49 pairs of things in 2,000 captioned
# photographs, `lite`: precision@10 of 0.42 with a half, 0.37 with the whole, 0.43 for A alone and 0.27 for the
# sentence; over 43 pairs in 1,000 others 0.40, 0.38, 0.36 and 0.26. To take away only what is a standard deviation and
# more above the mean was better there (0.47 for 0.44 of this over 35 pairs) and worse on the dev photographs (0.42 for
# 0.46 over 33). For "A with B" the sentence stays best: over 116 pairs 0.19, the sum 0.17, both as likely as the less
# likely one 0.11.
UNWANTED = 0.5

Spread = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Query:
    """What to search with, made of parts: `Query.text("a beach") + 0.5 * Query.image("a.jpg") - Query.text("people")`.

    Attributes:
        parts: Each with its weight; what is unwanted has a negative one.
    """

    parts: tuple[QueryPart, ...]

    @classmethod
    def text(cls, text: str) -> Self:
        """Words."""
        return cls((text_part(text),))

    @classmethod
    def image(cls, image: Any) -> Self:
        """An image: a path, the bytes of a file, or a PIL image."""
        return cls((image_part(image),))

    @classmethod
    def item(cls, item_id: str, collection: Collection | None = None) -> Self:
        """An item of the index, which is no hit itself; among the images first, where no collection is named."""
        return cls((item_part(item_id, collection),))

    @classmethod
    def vector(cls, vector: Any, modality: Modality) -> Self:
        """A ready vector (dim,), and whether it stands for a text or an image."""
        return cls((vector_part(np.asarray(vector), modality),))

    def __add__(self, other: Query) -> Query:
        return Query((*self.parts, *other.parts)) if isinstance(other, Query) else NotImplemented

    def __sub__(self, other: Query) -> Query:
        return self + -other if isinstance(other, Query) else NotImplemented

    def __mul__(self, factor: float) -> Query:
        if not isinstance(factor, Real):
            return NotImplemented
        return Query(tuple(replace(part, weight=part.weight * float(factor)) for part in self.parts))

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return self * -1


def composed_label(parts: Sequence[QueryPart]) -> str:
    """Return a composed query for people, e.g. `a beach + 0.5 x a.jpg - people`."""
    words = ""
    for part in parts:
        sign = "- " if part.weight < 0 else "+ " if words else ""
        size = "" if abs(part.weight) == 1 else f"{abs(part.weight):g} x "
        words += f"{' ' if words else ''}{sign}{size}{part.label}"
    return words


def compose(queries: Sequence[ResolvedQuery], spread: Spread) -> ResolvedQuery:
    """Return several queries as one.

    Cosines of a text and of an image to the same items have other means and spreads, so that a plain sum would follow
    the images alone. Wanted parts of one modality are added as they are; what each modality gives, and each unwanted
    part, is divided by the spread of its cosines over the collection first. As that is a sum of dot products, it is the
    dot product with one vector, whose cosine is the score of a hit.

    Args:
        queries: The parts, weights in `part.weight`.
        spread: Unit vectors (n, dim) to the standard deviations (n,) of their cosines over what is searched.

    Raises:
        QueryError: The parts cancel one another.
    """
    wanted = [query for query in queries if query.part.weight > 0]
    unwanted = [query for query in queries if query.part.weight < 0]
    total = sum(query.part.weight for query in wanted)
    rows, weights = [], []
    for modality in dict.fromkeys(query.modality for query in wanted):
        group = [query for query in wanted if query.modality == modality]
        rows.append(_unit(sum(query.part.weight * query.vector.astype(np.float64) for query in group)))
        weights.append(sum(query.part.weight for query in group) / total)
    for query in unwanted:
        rows.append(query.vector.astype(np.float64))
        weights.append(UNWANTED * query.part.weight * len(wanted) / total)
    spreads = spread(np.asarray(rows, dtype=np.float32)).astype(np.float64)
    scale = np.where(spreads > _SMALLEST, spreads, 1.0)
    vector = _unit((np.array(weights) / scale) @ np.asarray(rows))
    parts = tuple(query.part for query in queries)
    part = QueryPart(kind="composed", label=composed_label(parts), content=parts)
    modalities = {query.modality for query in wanted}
    return ResolvedQuery(
        part,
        vector.astype(np.float32),
        modalities.pop() if len(modalities) == 1 else None,
        examples=tuple(query.row for query in queries if query.row is not None),
    )


def _unit(vector: Any) -> NDArray[np.float64]:
    length = float(np.sqrt(vector @ vector))
    if length < _SMALLEST:
        raise QueryError("the parts of the query cancel one another, so that nothing is left to look for")
    unit: NDArray[np.float64] = vector / length
    return unit
