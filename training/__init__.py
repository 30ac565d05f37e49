"""Fine-tuning of two-tower encoders by contrast, on captioned images or on pairs of any kind.

`fit_encoder` and `fit_pairs` write a folder that `encoders.load_encoder("local-dir:...")` opens. Importing this package
imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import FitConfig
from .errors import CheckpointError, ExamplesError, TrainingError
from .examples import CaptionedImages, PairSet

if TYPE_CHECKING:
    from .fit import fit_encoder, fit_pairs
    from .report import FitReport
    from .table import read_captions

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
_LAZY = {"fit_encoder": "fit", "fit_pairs": "fit", "FitReport": "report", "read_captions": "table"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
