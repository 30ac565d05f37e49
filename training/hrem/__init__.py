"""HREM: instance relations for image-text matching (Fu et al., "Learning Semantic Relationship among Instances for
Image-Text Matching", CVPR 2023). In training all images and captions of a batch attend to each other; at search time
two towers and a dot product are left. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .extract import write_regions
    from .hrem_config import HremConfig
    from .hrem_evaluation import evaluate_hrem
    from .hrem_fit import fit_hrem
    from .hrem_report import HremReport

__all__ = ["HremConfig", "HremReport", "evaluate_hrem", "fit_hrem", "write_regions"]

__getattr__ = lazy_exports(
    __name__,
    {
        "HremConfig": ".hrem_config",
        "HremReport": ".hrem_report",
        "evaluate_hrem": ".hrem_evaluation",
        "fit_hrem": ".hrem_fit",
        "write_regions": ".extract",
    },
)
