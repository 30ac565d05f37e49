"""HREM: instance relations for image-text matching (Fu et al., "Learning Semantic Relationship among Instances for
Image-Text Matching", CVPR 2023). In training all images and captions of a batch attend to each other; at search time
two towers and a dot product are left. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .config import HremConfig
    from .grid_features import write_regions
    from .hrem_evaluation import HremReport, evaluate_hrem
    from .hrem_training import fit_hrem

__all__ = ["HremConfig", "HremReport", "evaluate_hrem", "fit_hrem", "write_regions"]

__getattr__ = lazy_exports(
    __name__,
    {
        "HremConfig": ".config",
        "HremReport": ".hrem_evaluation",
        "evaluate_hrem": ".hrem_evaluation",
        "fit_hrem": ".hrem_training",
        "write_regions": ".grid_features",
    },
)
