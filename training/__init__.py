"""Fine-tuning of two-tower encoders by contrast, on captioned images or on pairs of any kind.

`fit_encoder` and `fit_pairs` write a folder that `encoders.load_encoder("local-dir:...")` opens. Importing this package
imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

from .config import FitConfig
from .errors import CheckpointError, ExamplesError, TrainingError
from .examples import CaptionedImages, PairSet

if TYPE_CHECKING:
    from .examples import read_captions
    from .fit import fit_encoder, fit_pairs
    from .report import FitReport

__all__ = [
    "CaptionedImages",
    "CheckpointError",
    "ExamplesError",
    "FitConfig",
    "FitReport",
    "PairSet",
    "TrainingError",
    "fit_encoder",
    "fit_pairs",
    "read_captions",
]

__getattr__ = lazy_exports(
    __name__, {"FitReport": ".report", "fit_encoder": ".fit", "fit_pairs": ".fit", "read_captions": ".examples"}
)
