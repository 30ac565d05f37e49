"""The ANN plan of a collection: kind, lists and codes, decided from its size before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from storage.schema import ANN_KINDS, AnnKind, AnnPlan

from ..errors import BuildError

# Values (rows x dim) up to which one exact scan of the stored vectors takes about 5 ms on one core.
FLAT_VALUES = 10_000_000

# Lists from which on FAISS finds the centroids of an `ivf-pq4` by 4-bit codes: 39 us in place of 77 for 2048 lists.
FAST_CENTROIDS = 1024

_MINIMUM_ROWS: Mapping[AnnKind, int] = {
    "flat": 0,
    "ivf-flat": 1,
    "ivf-pq": 256,  # an 8-bit quantiser has 256 centroids, and each needs a point
    "ivf-pq4": 64,  # 4 points for each of the 16 centroids of a 4-bit quantiser
    "ivf-rabitq": 16,
    "hnsw": 1,
}
_MINIMUM_LIST_ROWS = 30
_MAXIMUM_NLIST = 1 << 16
_FINER, _MOST_FINER = 12, 16384  # lists for each square root of the rows, and at most
# Measured on a million CLIP-like vectors, in the rotation that all of them get: 4-bit codes of 2 dimensions (dim / 4
# bytes a vector) find 0.95 of what captions look for among 8 k candidates and 0.99 among 24 k. Codes of 4 need twice
# as many and more, and half as many bytes to scan do not pay for that.
_PQ_WIDTH: Mapping[AnnKind, int] = {"ivf-pq": 8, "ivf-pq4": 2}
# Short vectors get a 4-bit code for each dimension, in not more bytes than longer ones have: of a million of 200
# dimensions images are then found in half of the time, and captions in nine tenths.
_ONE_CODE_A_DIMENSION = 256
_TRAIN_ROWS_A_LIST, _LEAST_ROWS_A_LIST = 64, 32
_TRAIN_ROWS_LISTS = 1 << 19  # from which on a list gets fewer: a million of 512 dimensions would be 2 GB
_TRAIN_ROWS_CODES = 65536


def plan_ann(
    kind: AnnKind | Literal["auto"], rows: int, dim: int, *, seed: int = 0, nlist: int | None = None
) -> AnnPlan:
    """Return the plan for a collection of `rows` vectors of length `dim`.

    Args:
        kind: A family, or `auto`: every vector is compared while that takes about 5 ms, then `ivf-pq4`.
        rows: Vectors in the collection; with none the plan is `flat`, whatever the kind.
        dim: Their length. Where the usual size of a PQ code does not divide it, the next finer code that does is used.
        seed: Seed of the training sample and of k-means.
        nlist: Inverted lists; None takes the power of two next to the square root of the rows, for `ivf-pq4` next to
            twelve times that, up to 16384. More lists make building slower and probing finer; usual range 1 to 16
            times the square root.

    Raises:
        BuildError: `kind` is unknown, `nlist` is out of range, or there are too few rows to train on.
    """
    chosen: AnnKind = _auto(rows, dim) if kind == "auto" else kind
    if chosen not in ANN_KINDS:
        raise BuildError(f"unknown kind of index {kind!r}; give one of auto, {', '.join(ANN_KINDS)}")
    if chosen == "flat" or rows == 0:
        return AnnPlan(kind="flat", seed=seed)
    if rows < minimum_rows(chosen):
        raise BuildError(
            f"{chosen!r} needs at least {minimum_rows(chosen)} vectors to train, this collection has {rows}; "
            "use --ann flat or add items"
        )
    if chosen == "hnsw":
        return AnnPlan(kind="hnsw", factory="HNSW32_SQfp16", seed=seed)
    lists = _nlist(chosen, rows) if nlist is None else nlist
    if not 1 <= lists <= min(rows, _MAXIMUM_NLIST):
        raise BuildError(f"nlist is {nlist!r}; give 1 to {min(rows, _MAXIMUM_NLIST)} for {rows} vectors")
    factory = f"{_rotation(chosen, dim)}IVF{lists},{_codes(chosen, dim)}"
    return AnnPlan(kind=chosen, factory=factory, nlist=lists, train_rows=_train_rows(rows, lists), seed=seed)


def minimum_rows(kind: AnnKind) -> int:
    """Return how many vectors a collection needs for this kind."""
    return _MINIMUM_ROWS[kind]


def pq_width(kind: AnnKind, dim: int) -> int:
    """Return how many dimensions one PQ code of `ivf-pq` or `ivf-pq4` covers: the largest usable divisor of `dim`."""
    if kind == "ivf-pq4" and dim <= _ONE_CODE_A_DIMENSION and dim % 4 == 0:
        return 1
    return max(width for width in range(1, _PQ_WIDTH[kind] + 1) if dim % width == 0)


def _auto(rows: int, dim: int) -> AnnKind:
    return "flat" if rows * dim <= FLAT_VALUES or rows < minimum_rows("ivf-pq4") else "ivf-pq4"


def _nlist(kind: AnnKind, rows: int) -> int:
    nlist = _power_of_two(math.sqrt(rows))
    if kind == "ivf-pq4":  # what finer lists cost a query, quick centroids give back
        nlist = max(nlist, min(_power_of_two(_FINER * math.sqrt(rows)), _MOST_FINER))
    while nlist > 1 and rows < _MINIMUM_LIST_ROWS * nlist:
        nlist //= 2
    return min(nlist, _MAXIMUM_NLIST)


def _power_of_two(number: float) -> int:
    return 1 << max(0, round(math.log2(number)))


def _rotation(kind: AnnKind, dim: int) -> str:
    return f"OPQ{dim // pq_width(kind, dim)}," if kind in _PQ_WIDTH else ""


def _codes(kind: AnnKind, dim: int) -> str:
    match kind:
        case "ivf-pq4":
            return f"PQ{dim // pq_width(kind, dim)}x4fsr"  # residual codes: 4 points more recall than plain ones
        case "ivf-pq":
            return (
                f"PQ{dim // pq_width(kind, dim)}x8np"  # no polysemous training: slow, and the re-rank makes up for it
            )
        case "ivf-rabitq":
            return "RaBitQfs"
        case _:
            return "SQfp16"  # the stored vectors are float16 as well, so nothing is lost


def _train_rows(rows: int, nlist: int) -> int:
    for_lists = max(min(_TRAIN_ROWS_A_LIST * nlist, _TRAIN_ROWS_LISTS), _LEAST_ROWS_A_LIST * nlist)
    return min(rows, max(for_lists, _TRAIN_ROWS_CODES))
