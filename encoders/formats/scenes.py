"""Where a film changes its scene, by small copies of its frames."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

CUT = 24.0
"""Mean difference of two frames, of 255, that may be a cut; 15 to 40. Detectors of scenes take 27 of 255 as a rule."""
_SUDDEN = 3.0
"""By how much a cut differs more than the frames before it do: what moves before the lens differs all the time."""
DRIFT = 30.0
"""Mean difference of the colours from those of a scene's first frame at which a slow change is a new scene.

Of colours and not of places: a camera that turns or walks shows others of the same scene.
"""
_LEAST_SECONDS, _LEAST_DRIFT_SECONDS = 0.5, 3.0
_REMEMBERED = 12


class Scenes:
    """Takes the frames of a film in order, and says which begin a scene; the first one does."""

    def __init__(self) -> None:
        self._colours: NDArray[np.int16] = np.zeros((0, 3), np.int16)
        self._last: NDArray[np.int16] | None = None
        self._began = 0.0
        self._differences: deque[float] = deque(maxlen=_REMEMBERED)

    def begins(self, frame: NDArray[np.int16], seconds: float) -> bool:
        """Return whether a scene begins with this frame, (height, width, 3) of bytes, shown at `seconds`."""
        if self._last is None:
            self._start(frame, seconds)
            return True
        difference = float(np.abs(frame - self._last).mean())
        usual = float(np.median(self._differences)) if self._differences else 0.0
        self._differences.append(difference)
        self._last = frame
        passed = seconds - self._began
        cut = difference > CUT and difference > _SUDDEN * usual and passed >= _LEAST_SECONDS
        drift = passed >= _LEAST_DRIFT_SECONDS and float(np.abs(_colours(frame) - self._colours).mean()) > DRIFT
        if cut or drift:
            self._start(frame, seconds)
        return cut or drift

    def _start(self, frame: NDArray[np.int16], seconds: float) -> None:
        self._last, self._colours = frame, _colours(frame)
        self._began = seconds


def _colours(frame: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the values of each channel in order: their differences are the earth mover's distance of histograms."""
    return np.sort(frame.reshape(-1, frame.shape[-1]), axis=0)
