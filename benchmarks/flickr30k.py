"""Flickr30K: recall@1/5/10 both ways, exact and through IVF-PQ, zero-shot and after fine-tuning, beside published rows.

    python benchmarks/flickr30k.py --root DIR --encoder ViT-B-32/laion2b_s34b_b79k

DIR holds the original files, in any of the layouts that `layouts.py` lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layouts import FLICKR30K
from retrieval import run

from encoders import Encoder


def main(argv: Sequence[str] | None = None, encoders: Mapping[str, Encoder] | None = None) -> dict[str, Any]:
    return run(FLICKR30K, argv, encoders)


if __name__ == "__main__":
    main()
