"""HREM: instance relations for image-text matching (Fu et al., "Learning Semantic Relationship among Instances for
Image-Text Matching", CVPR 2023). In training all pictures and captions of a batch attend to each other; at search time
two towers and a dot product are left. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import HremConfig

if TYPE_CHECKING:
    from .evaluate import evaluate_hrem
    from .extract import write_regions
    from .fit import fit_hrem
    from .report import HremReport

__all__ = ["HremConfig", "HremReport", "evaluate_hrem", "fit_hrem", "write_regions"]
_LAZY = {"HremReport": "report", "evaluate_hrem": "evaluate", "fit_hrem": "fit", "write_regions": "extract"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
