"""Where a film changes its scene, by small copies of its frames."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

CUT = 24.0
"""Mean difference of two frames, of 255, that may be a cut; 15 to 40. Detectors of scenes take 27 of 255 as a rule."""
_SUDDEN = 3.0
"""By how much a cut differs more than the frames before it do: what moves before the lens differs all the time."""
DRIFT = 40.0
"""Mean difference from the first frame of a scene at which a slow change, as by fading, is a new scene."""
_LEAST_SECONDS, _LEAST_DRIFT_SECONDS = 0.5, 3.0
_REMEMBERED = 12


class Scenes:
    """Takes the frames of a film in order, and says which begin a scene; the first one does."""

    def __init__(self) -> None:
        self._first: NDArray[np.int16] | None = None
        self._last: NDArray[np.int16] | None = None
        self._began = 0.0
        self._differences: deque[float] = deque(maxlen=_REMEMBERED)

    def begins(self, frame: NDArray[np.int16], seconds: float) -> bool:
        """Return whether a scene begins with this frame, (height, width, 3) of bytes, shown at `seconds`."""
        if self._first is None or self._last is None:
            self._start(frame, seconds)
            return True
        difference = float(np.abs(frame - self._last).mean())
        usual = float(np.median(self._differences)) if self._differences else 0.0
        self._differences.append(difference)
        self._last = frame
        passed = seconds - self._began
        cut = difference > CUT and difference > _SUDDEN * usual and passed >= _LEAST_SECONDS
        drift = passed >= _LEAST_DRIFT_SECONDS and float(np.abs(frame - self._first).mean()) > DRIFT
        if cut or drift:
            self._start(frame, seconds)
        return cut or drift

    def _start(self, frame: NDArray[np.int16], seconds: float) -> None:
        self._first = self._last = frame
        self._began = seconds
