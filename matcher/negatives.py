"""Wrong pairs drawn from true ones, so that a calibration needs no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.arguments import check_fields, exits_as_typed_wrong

from .errors import CalibrationError

_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How wrong pairs are drawn: for each true pair one at random and one among the nearest.

    Attributes:
        hard_share: The hard one is drawn from this share of the wrong responses, the nearest to the query (at least
            one). A share and not a number, so that probabilities mean the same whatever the size of the collection;
            smaller is harder. 0.01 to 0.2 is usual.
        most: True pairs to use at most, drawn at random.
        seed: The same seed draws the same pairs.
    """

    hard_share: float = 0.1
    most: int = 10_000
    seed: int = 0

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            CalibrationError: A value is out of range.
        """
        check_fields(self, CalibrationError)
        if not 0 < self.hard_share <= 1:
            raise CalibrationError(f"hard_share={self.hard_share!r} is no share; give a number above 0, at most 1")
        if self.most < 1:
            raise CalibrationError(f"most={self.most!r} pairs cannot be drawn; give 1 or more")


class SampledPairs(NamedTuple):
    """True pairs, random wrong ones, hard wrong ones, a third each and in this order: rows, cosines, labels."""

    query: NDArray[np.int64]
    response: NDArray[np.int64]
    cosine: NDArray[np.float64]
    label: NDArray[np.int64]


def sample_pairs(
    queries: NDArray[Any], responses: NDArray[Any], pairs: NDArray[np.int64], sampling: Sampling | None = None
) -> SampledPairs:
    """Return 1 true : 1 random wrong : 1 hard wrong pairs.

    Args:
        queries: (n, dim) unit rows, each distinct query once.
        responses: (m, dim) unit rows, each distinct response once.
        pairs: (p, 2) all rows (query, response) that belong together; whatever is not among them counts as wrong.
        sampling: How to draw.

    Raises:
        CalibrationError: A query has no wrong response left to draw.
    """
    how = sampling or Sampling()
    rng = np.random.default_rng(how.seed)
    chosen = pairs if len(pairs) <= how.most else pairs[np.sort(rng.choice(len(pairs), how.most, replace=False))]
    true_of = _by_query(pairs, len(queries))
    drawn = [
        _draw(queries, responses, chosen[i : i + _BLOCK], true_of, how, rng) for i in range(0, len(chosen), _BLOCK)
    ]
    random, hard = (np.concatenate(part) for part in zip(*drawn, strict=True))
    query = np.tile(chosen[:, 0], 3)
    response = np.concatenate([chosen[:, 1], random, hard])
    label = np.repeat([1, 0, 0], len(chosen))
    return SampledPairs(query, response, cosines(queries[query], responses[response]), label)


def cosines(queries: NDArray[Any], responses: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row of two sets of unit rows, in [-1, 1]."""
    found = [
        np.vecdot(queries[i : i + _BLOCK].astype(np.float64), responses[i : i + _BLOCK].astype(np.float64))
        for i in range(0, len(queries), _BLOCK)
    ]
    return np.clip(np.concatenate(found), -1, 1) if found else np.empty(0)


def _by_query(pairs: NDArray[np.int64], queries: int) -> list[NDArray[np.int64]]:
    order = np.argsort(pairs[:, 0], kind="stable")
    ends = np.searchsorted(pairs[order, 0], np.arange(1, queries))
    return np.split(pairs[order, 1], ends)


def _draw(
    queries: NDArray[Any],
    responses: NDArray[Any],
    pairs: NDArray[np.int64],
    true_of: list[NDArray[np.int64]],
    how: Sampling,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each true pair a random wrong response and a hard one."""
    scores = queries[pairs[:, 0]].astype(np.float32) @ responses.astype(np.float32).T
    random, hard = np.empty((2, len(pairs)), dtype=np.int64)
    for line, query in enumerate(pairs[:, 0].tolist()):
        wrong = np.delete(np.arange(len(responses)), true_of[query])
        if not len(wrong):
            raise CalibrationError(
                f"all {len(responses)} distinct responses are true for one query, so no wrong pair can be drawn; "
                "give more pairs, or labelled ones"
            )
        nearest = max(1, round(how.hard_share * len(wrong)))
        order = np.argpartition(-scores[line, wrong], nearest - 1)[:nearest]
        random[line], hard[line] = rng.choice(wrong), wrong[rng.choice(np.sort(order))]
    return random, hard
