"""What matching pairs brings back: for each pair cosine, probability and verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .outputs import pandas


@dataclass(frozen=True, kw_only=True)
class Match:
    """One pair; `cosine`, `probability` and `match` are None where `error` says why it could not be judged."""

    cosine: float | None
    probability: float | None
    match: bool | None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches(Sequence[Match]):
    """The pairs of a table, in its order.

    Attributes:
        cosine: (n,) float64 in [-1, 1]; NaN for pairs in `errors`.
        probability: (n,) float64 in [0, 1], calibrated; NaN likewise, and for all without a calibration.
        match: (n,) bool, probability >= threshold; False where there is no probability.
        threshold: What was asked of the probability; None without a calibration.
        errors: For each row that could not be judged the reason.
        index: The index of a pandas frame; None for anything else.
    """

    cosine: NDArray[np.float64]
    probability: NDArray[np.float64]
    match: NDArray[np.bool_]
    threshold: float | None
    errors: Mapping[int, str] = field(default_factory=dict)
    index: Any = None

    def __len__(self) -> int:
        return len(self.cosine)

    @overload
    def __getitem__(self, row: int) -> Match: ...
    @overload
    def __getitem__(self, row: slice) -> list[Match]: ...
    def __getitem__(self, row: int | slice) -> Match | list[Match]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return Match(
            cosine=_known(self.cosine[row]),
            probability=_known(self.probability[row]),
            match=bool(self.match[row]) if _known(self.probability[row]) is not None else None,
            error=self.errors.get(row),
        )

    def __iter__(self) -> Iterator[Match]:
        return (self[row] for row in range(len(self)))

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object a pair: row (from 0), cosine, probability, match, and error where there is one."""
        return [
            {"row": row, "cosine": one.cosine, "probability": one.probability, "match": one.match}
            | ({"error": one.error} if one.error is not None else {})
            for row, one in enumerate(self)
        ]

    def to_pandas(self) -> Any:
        """Return a frame with the columns cosine, probability and match, indexed as the one that was asked with.

        Raises:
            MatcherError: pandas is not installed.
        """
        columns = {"cosine": self.cosine, "probability": self.probability, "match": self.match}
        return pandas().DataFrame(columns, index=self.index)


def _known(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
