"""The nearest responses of many queries, exactly, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MatcherError

Similarity = Literal["cosine", "dot"]
Ids = NDArray[np.int64]
Scores = NDArray[np.float64]

# Maxima of so many groups of responses bound the k-th best score from below; more bound it closer, at more work.
_GROUPS_A_HIT = 8
_BLOCK_VALUES = 1 << 22
_GATHER_VALUES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How much is compared at a time; the results do not depend on it.

    Attributes:
        queries: Queries a block. With `responses` it decides the work space: their product times 4 bytes.
        responses: Responses a block.
    """

    queries: int = 512
    responses: int = 500_000

    def __post_init__(self) -> None:
        """Refuse sizes below 1.

        Raises:
            MatcherError: One is.
        """
        for name, size in (("query_chunk_size", self.queries), ("response_chunk_size", self.responses)):
            if size < 1:
                raise MatcherError(f"{name}={size!r} is no size; give 1 or more")


def nearest(queries: NDArray[Any], responses: NDArray[Any], k: int, chunks: Chunks | None = None) -> tuple[Ids, Scores]:
    """Return the `k` responses with the largest dot product for each query.

    Blocks of float32 products propose every response that could be among the best; those few are scored again in
    float64, the same way wherever they stand, so that equal vectors have equal scores and results do not depend on
    the sizes of the blocks.

    Args:
        queries: (n, dim) finite floats; unit rows make the score a cosine.
        responses: (m, dim).
        k: How many to return, at least 1; at most m come back.
        chunks: How much to compare at a time.

    Returns:
        Rows of `responses` (n, min(k, m)) and float64 scores of the same shape; best first, equal scores by lower row.
    """
    size, k = chunks or Chunks(), min(k, len(responses))
    queries, responses = (np.ascontiguousarray(array, dtype=np.float32) for array in (queries, responses))
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float64)
    if not k:
        return ids, scores
    slack = _slack(queries, responses)
    wide = min(size.responses, len(responses))
    step = max(1, min(size.queries, _BLOCK_VALUES // wide))
    for top in range(0, len(queries), step):
        part = slice(top, top + step)
        found = [
            _propose(queries[part], responses[left : left + wide], k, slack[part], left)
            for left in range(0, len(responses), wide)
        ]
        line, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ids[part], scores[part] = _best(queries[part], responses, line, row, k)
    return ids, scores


def as_vectors(embeddings: Any, what: str, similarity: Similarity = "cosine") -> NDArray[np.float32]:
    """Return ready embeddings as (n, dim) float32, at unit length for `cosine`; one vector (dim,) becomes one row.

    Args:
        embeddings: An array, a torch tensor, a list of rows, or a frame as `extract_embedding` gives it.
        what: What to call them in a message.
        similarity: `cosine` or `dot`.

    Raises:
        DataError: They are no numbers, have another shape, are not finite, or a row of zeros has no direction.
    """
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().cpu().numpy()
    try:
        array = np.atleast_2d(np.asarray(embeddings, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are no array of numbers: {error}; give an array (n, dim)") from error
    if array.ndim != 2 or not array.size:
        raise DataError(f"{what} have shape {array.shape}; give an array (n, dim) with at least one row")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise DataError(f"{what}, row {row}, hold NaN or infinite values; encode it again")
    return array if similarity == "dot" else _unit_rows(array, what)


def _unit_rows(array: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    length = np.linalg.norm(array.astype(np.float64), axis=1)
    if not length.all():
        raise DataError(f"{what}, row {int(np.argmin(length))}, are all zeros and point nowhere; encode it again")
    # Rows that an encoder has brought to unit length stay as they are, bit for bit.
    off = np.abs(length - 1) > 1e-6
    return np.where(off[:, None], array / length[:, None], array).astype(np.float32) if off.any() else array


def _slack(queries: NDArray[np.float32], responses: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each query how far float32 products may lie from the truth; see `evaluation.counting`."""
    longest = float(np.sqrt(np.einsum("ij,ij->i", responses, responses).max()))
    error = (3 * np.sqrt(queries.shape[1]) + 4) * 2.0**-24 * longest
    return np.asarray(2 * error * np.linalg.norm(queries, axis=1), dtype=np.float32)


def _propose(
    queries: NDArray[np.float32], responses: NDArray[np.float32], k: int, slack: NDArray[np.float32], first: int
) -> tuple[Ids, Ids]:
    """Return (query, response) rows of all that may be among the best k of a block."""
    scores = queries @ responses.T
    lines, rows = np.nonzero(scores >= (_bound(scores, k) - slack)[:, None])
    return lines, rows + first


def _bound(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return for each line a score that at least k entries reach: the k-th best of the maxima of groups."""
    m = scores.shape[1]
    if m <= k:
        return np.asarray(scores.min(axis=1))
    width = max(1, m // min(m, _GROUPS_A_HIT * k))
    whole = m // width * width
    # Groups of entries that lie apart, so that each step of the maximum runs along whole lines.
    best = scores[:, :whole].reshape(len(scores), width, -1).max(axis=1)
    return np.asarray(np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k])


def _best(
    queries: NDArray[np.float32], responses: NDArray[np.float32], line: Ids, row: Ids, k: int
) -> tuple[Ids, Scores]:
    """Score what was proposed in float64, and return the best k of each query."""
    score = _dots(queries, responses, line, row)
    order = np.lexsort((row, -score, line))
    starts = np.searchsorted(line[order], np.arange(len(queries)))
    kept = order[starts[:, None] + np.arange(k)]
    return row[kept], score[kept]


def _dots(queries: NDArray[np.float32], responses: NDArray[np.float32], line: Ids, row: Ids) -> Scores:
    step = max(1, _GATHER_VALUES // queries.shape[1])
    parts = [
        np.vecdot(queries[line[i : i + step]].astype(np.float64), responses[row[i : i + step]].astype(np.float64))
        for i in range(0, len(line), step)
    ]
    return np.concatenate(parts)
