"""From what a caller asks with (text, file, bytes, picture, vector) to unit vectors."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import QueryError, SearchError

Modality = Literal["text", "image"]
Vectors = NDArray[np.float32]
QueryLike = str | Path | bytes | Image.Image | NDArray[Any]

_URL = re.compile(r"^(https?|ftp|s3|gs|data|file):", re.IGNORECASE)
_MAX_TEXT = 100_000
_SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query as it was asked.

    Attributes:
        kind: `text`, `image` or `vector`.
        label: For people: the text, the file's name, or what it is.
        content: The text, the path, the bytes, the picture or the vector.
    """

    kind: Literal["text", "image", "vector"]
    label: str
    content: Any


def split_queries(query: Any) -> tuple[list[Any], bool]:
    """Return the single queries, and whether there was one that stood alone (not in a list, not a row of an array)."""
    if isinstance(query, np.ndarray):
        if query.ndim not in (1, 2):
            raise QueryError(f"a query array has shape {query.shape}; give one vector (dim,) or several (n, dim)")
        return ([query], True) if query.ndim == 1 else (list(query), False)
    if isinstance(query, Sequence) and not isinstance(query, (str, bytes)):
        return list(query), False
    return [query], True


def understand(query: Any, modality: Modality) -> Query:
    """Return one query with its kind; files are looked for, not read.

    Raises:
        QueryError: It is nothing that can be searched with in this direction.
    """
    if isinstance(query, np.ndarray):
        return Query(kind="vector", label=f"a vector of {query.size} values", content=query)
    return _text(query) if modality == "text" else _image(query)


def _text(query: Any) -> Query:
    if not isinstance(query, str):
        raise QueryError(
            f"this direction searches with text or a vector, and a query is of type {type(query).__name__}; "
            "search with a picture by image_to_image or image_to_text"
        )
    if not query.strip() or len(query) > _MAX_TEXT:
        raise QueryError(
            f"the query text {query[:40]!r} has {len(query)} characters; give 1 to {_MAX_TEXT:,} with words"
        )
    try:
        query.encode("utf-8")
    except UnicodeEncodeError as error:
        raise QueryError(
            f"the query text {query[:40]!r} is not Unicode text: {error.reason}; decode it first"
        ) from error
    return Query(kind="text", label=query, content=query)


def _image(query: Any) -> Query:
    if isinstance(query, (str, Path)):
        return _image_file(query)
    if isinstance(query, bytes):
        return Query(kind="image", label=f"a picture of {len(query)} bytes", content=query)
    if isinstance(query, Image.Image):
        return Query(kind="image", label=f"a picture of {query.width} x {query.height}", content=query)
    raise QueryError(
        "this direction searches with a path, bytes, a PIL image or a vector, "
        f"and a query is of type {type(query).__name__}"
    )


def _image_file(query: str | Path) -> Query:
    name = str(query)
    if _URL.match(name):
        raise QueryError(
            f"the query {name[:80]!r} is a URL, and nothing is fetched; save the picture and give its path"
        )
    try:
        found = bool(name) and "\0" not in name and Path(name).is_file()
    except OSError as error:
        raise QueryError(f"the query picture {name[:80]!r} cannot be read: {error.strerror}; give a path") from error
    if not found:
        raise QueryError(
            f"there is no query picture at {name[:200]!r}; give the path of a file, "
            "or search with words by text_to_image"
        )
    return Query(kind="image", label=_shown_name(name), content=Path(name))


def _shown_name(name: str) -> str:
    """The last part of a path; bytes that are no UTF-8 show as the replacement sign, since results are Unicode."""
    return os.fsencode(Path(name).name).decode("utf-8", errors="replace")


def unit_rows(vectors: Any, dim: int) -> Vectors:
    """Return (n, dim) float32 rows of unit length, one row for a single vector (dim,).

    Raises:
        QueryError: Not numbers, not (n, dim), not finite, or a row of zeros.
    """
    if (quick := _quick_unit_rows(vectors, dim)) is not None:
        return quick
    try:
        array = np.atleast_2d(np.asarray(vectors))
    except ValueError as error:
        raise QueryError(f"the query vectors are no array: {error}; give an array (n, {dim})") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise QueryError(f"the query vectors have shape {array.shape}; this index takes (n, {dim})")
    if array.dtype.kind not in "fiu":
        raise QueryError(f"the query vectors are of type {array.dtype}; give numbers, e.g. float32")
    wide = array.astype(np.float64)
    _check_rows(np.asarray(np.isfinite(wide).all(axis=1)), "has a value that is not finite (NaN or infinite)")
    # By the largest value first: squares of huge or tiny values would overflow or vanish.
    peak = np.abs(wide).max(axis=1, initial=0.0)
    _check_rows(peak > 0, "is all zeros, so it points nowhere")
    wide /= peak[:, None]
    wide /= np.maximum(np.sqrt(np.vecdot(wide, wide)), _SMALLEST)[:, None]
    return np.ascontiguousarray(wide, dtype=np.float32)


def _quick_unit_rows(vectors: Any, dim: int) -> Vectors | None:
    """Return what nearly all vectors become, in a third of the time; None for those that need a closer look."""
    if type(vectors) is not np.ndarray or vectors.dtype != np.float32 or vectors.ndim != 2:
        return None
    if vectors.shape[1] != dim or not vectors.size:
        return None
    wide = vectors.astype(np.float64)
    squares = np.vecdot(wide, wide)
    if not (squares.min() > _SMALLEST and squares.max() < np.inf):  # NaN fails the first
        return None
    wide /= np.sqrt(squares)[:, None]
    return wide.astype(np.float32)


def _check_rows(good: NDArray[np.bool_], what: str) -> None:
    if not good.all():
        raise QueryError(f"query vector {int(np.flatnonzero(~good)[0])} {what}; encode it again")


MAX_K = 10_000
DEFAULT_ANN_RECALL = 0.95
_MAX_NPROBE = 1 << 24
_MAX_OVERSAMPLE = 10_000


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of every search; `SearchParams` says what they mean."""

    where: str | None
    ann_recall: float | None
    nprobe: int | None
    oversample: int | None
    exact: bool
    columns: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class SearchParams:
    """One search, as asked.

    Attributes:
        k: Hits wanted a query, 1 to 10,000; fewer come back where the collection or the filter has fewer.
        where: A DuckDB predicate on catalog columns, e.g. `width >= 640`; None for all items.
        ann_recall: Share of the exact top k that the search should find, above 0, at most 1; None means 0.95. The
            cheapest measured setting that reaches it is used. Recall and time rise together; 0.9 to 0.99 is usual.
        nprobe: Lists visited a query (`efSearch` for `hnsw`), in place of the measured setting. Leave it alone unless
            you measure.
        oversample: Candidates are `k * oversample`, in place of the measured setting; 4 to 32 is usual with PQ codes.
        exact: Compare every vector: slower, and nothing is missed.
        columns: Metadata columns to bring back with each hit; None for all.
    """

    k: int = 10
    where: str | None = None
    ann_recall: float | None = None
    nprobe: int | None = None
    oversample: int | None = None
    exact: bool = False
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what no index can do.

        Raises:
            SearchError: A value is outside its range; the message names both.
        """
        _check_whole("k", self.k, MAX_K)
        if self.nprobe is not None:
            _check_whole("nprobe", self.nprobe, _MAX_NPROBE)
        if self.oversample is not None:
            _check_whole("oversample", self.oversample, _MAX_OVERSAMPLE)
        if self.ann_recall is not None:
            _check_share(self.ann_recall)
        if isinstance(self.columns, str):
            raise SearchError(
                f"columns={self.columns!r} is one string; give a list of names: columns=[{self.columns!r}]"
            )

    @property
    def wanted_recall(self) -> float:
        """The `ann_recall` asked for, or the default."""
        return DEFAULT_ANN_RECALL if self.ann_recall is None else float(self.ann_recall)


def _check_whole(name: str, value: Any, most: int) -> None:
    if type(value) is int and 1 <= value <= most:
        return  # almost always, and ten times as quick
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= int(value) <= most:
        raise SearchError(f"{name}={value!r} must be a whole number from 1 to {most:,}")


def _check_share(value: Any) -> None:
    # `not 0 < x <= 1` also refuses NaN.
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) <= 1:
        raise SearchError(
            f"ann_recall={value!r} must be above 0 and at most 1, e.g. 0.95; use exact=True to miss nothing"
        )
