"""Arrays in the form that was asked for: numpy, pandas, torch or Arrow. What is not asked for is not imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
        data: What was asked with.
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
    asked = [name for name, wanted in (("tensor", as_tensor), ("pandas", as_pandas), ("arrow", as_arrow)) if wanted]
    if len(asked) > 1:
        raise MatcherError(f"as_{asked[0]} and as_{asked[1]} exclude each other; ask for one of them")
    return asked[0] if asked else "numpy"


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
