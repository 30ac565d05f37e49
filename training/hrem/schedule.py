"""The learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Sequence


def rate(epoch: int, steps: Sequence[int], decay: float) -> float:
    """Return the factor on the learning rate in an epoch, counted from 0: multiplied by `decay` at each step passed."""
    return decay ** sum(epoch >= step for step in steps)
