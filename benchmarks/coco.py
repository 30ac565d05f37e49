"""COCO captions, Karpathy's split: as Flickr30K's, of all 5,000 images and as the mean of five folds of 1,000.

    python benchmarks/coco.py --root DIR --encoder ViT-B-32/laion2b_s34b_b79k

The 5,000 test images have 25,010 captions, since a few have more than five. CLIP_benchmark counts them all, as is done
here by default; `--protocol vse` keeps the first five of each image, as the VSE++ family of papers does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layouts import COCO
from retrieval import run

from encoders import Encoder

FOLDS = 5


def main(argv: Sequence[str] | None = None, encoders: Mapping[str, Encoder] | None = None) -> dict[str, Any]:
    return run(COCO, argv, encoders, FOLDS)


if __name__ == "__main__":
    main()
