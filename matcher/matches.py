"""What matching pairs brings back: for each pair cosine, probability and verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .errors import MatcherError


def is_pandas(data: Any) -> bool:
    """Return whether the data is a pandas frame or series."""
    return type(data).__module__.partition(".")[0] == "pandas"


def as_frame(values: NDArray[Any], data: Any, as_pandas: bool | None) -> Any:
    """Return the values as they are, or as a pandas series (one column) or frame with the index of the data.

    Args:
        values: (n,) or (n, columns).
        data: The data of the call.
        as_pandas: Whether to make a frame; None does where the data is one.
    """
    if not (is_pandas(data) if as_pandas is None else as_pandas):
        return values
    pd = pandas()
    index = data.index if is_pandas(data) else None
    return pd.Series(values, index=index) if values.ndim == 1 else pd.DataFrame(values, index=index)


def embedding_form(as_tensor: bool, as_pandas: bool, as_arrow: bool) -> str:
    """Return which form was asked for.

    Raises:
        MatcherError: More than one was.
    """
    forms = [
        name for name, requested in (("tensor", as_tensor), ("pandas", as_pandas), ("arrow", as_arrow)) if requested
    ]
    if len(forms) > 1:
        raise MatcherError(f"as_{forms[0]} and as_{forms[1]} exclude each other; ask for one of them")
    return forms[0] if forms else "numpy"


def embeddings_as(vectors: NDArray[np.float32], form: str, data: Any) -> Any:
    """Return (n, dim) vectors as `numpy`, `tensor`, `pandas` or `arrow`."""
    if form == "tensor":
        import torch

        return torch.from_numpy(vectors)
    if form == "pandas":
        return as_frame(vectors, data, True)
    if form == "arrow":
        import pyarrow as pa

        flat = pa.array(vectors.reshape(-1))
        return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
    return vectors


def pandas() -> Any:
    """Return pandas, which is optional.

    Raises:
        MatcherError: It is not installed.
    """
    try:
        return import_module("pandas")
    except ImportError as error:
        raise MatcherError("a frame was asked for and pandas is not installed; run: pip install pandas") from error


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
        threshold: The smallest probability of a match; None without a calibration.
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
