"""What was compiled when this was installed; every part of it has another way where it was not."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

list_scan: Any = None
"""The module made from `list_scan.c`, or None."""
with suppress(ImportError):  # no compiler was there
    list_scan = import_module("._list_scan", __package__)

SWITCH = "TWINLENS_LIST_SCAN"
"""In the environment: `off` leaves searches to FAISS and NumPy, `256` takes the narrower lanes."""


def scan_lanes() -> int:
    """Return the bits of the lanes that inverted lists are scanned with: 512, 256, or 0 where there is no such scan."""
    asked = os.environ.get(SWITCH, "")
    return 0 if list_scan is None or asked == "off" else min(list_scan.lanes(), 256 if asked == "256" else 512)
