"""How much of the time allowed is left."""

from __future__ import annotations

import time


class Clock:
    """Counts from its making.

    Args:
        limit: Seconds allowed; None for any.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._began = time.monotonic()
        self._training_from = self._began
        # What is still to come when training ends: evaluations of candidates, saving.
        self._reserve = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self._limit is None else self._limit - self.seconds

    @property
    def over(self) -> bool:
        """Whether only the reserve is left."""
        return self.left <= self._reserve

    @property
    def share(self) -> float:
        """How much of the training time is gone, 0 to 1; 0 without a limit."""
        if self._limit is None:
            return 0.0
        whole = self._limit - self._reserve - (self._training_from - self._began)
        return min(1.0, (time.monotonic() - self._training_from) / whole) if whole > 0 else 1.0

    def start_training(self) -> None:
        """Note that what follows is training."""
        self._training_from = time.monotonic()

    def keep_back(self, seconds: float) -> None:
        """Reserve time for what comes after training."""
        self._reserve = max(self._reserve, seconds)
