"""The errors of `encoders.regions`, under `storage.errors.TwinlensError`.

TwinlensError
`-- RegionError   region features, captions or ids that cannot be used as they lie on disk
"""

from __future__ import annotations

from storage.errors import TwinlensError


class RegionError(TwinlensError):
    """Files of region features cannot be used: missing, of another shape, not finite, or not fitting their captions."""
