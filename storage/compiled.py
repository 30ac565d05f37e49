"""What was compiled when this was installed; every part of it has another way where it was not."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

_INTERFACE = 2  # of `list_scan.c`


def _found() -> Any:
    with suppress(ImportError):  # no compiler was there
        module = import_module("._list_scan", __package__)
        if getattr(module, "INTERFACE", 1) == _INTERFACE:
            return module
        warnings.warn(
            f"{module.__file__} was compiled from other sources than these, so searches go through FAISS and NumPy, at "
            "half the speed; install again",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


list_scan: Any = _found()
"""The module made from `list_scan.c`, or None."""

SWITCH = "TWINLENS_LIST_SCAN"
"""In the environment: `off` leaves searches to FAISS and NumPy, `256` takes the narrower lanes."""


def scan_lanes() -> int:
    """Return the bits of the lanes that inverted lists are scanned with: 512, 256, or 0 where there is no such scan."""
    asked = os.environ.get(SWITCH, "")
    return 0 if list_scan is None or asked == "off" else min(list_scan.lanes(), 256 if asked == "256" else 512)
