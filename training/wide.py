"""`lite` made ready for fine-tuning: the same vectors, heads that see more, and a map for the texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from encoders.conse import MAPPED_POOLER, WIDE_TRUNK, ConseTrunk, mapped, widened
from encoders.model import TwoTowers


def widened_lite(towers: TwoTowers) -> TwoTowers:
    """Return the untrained `lite` with the wide heads, and any other model as it is."""
    model: Any = towers.model
    trunk = getattr(model.visual, "trunk", None)
    if type(trunk) is not ConseTrunk or trunk.residual.weight.count_nonzero():
        return towers
    model.visual.trunk = widened(trunk).eval()
    model.text.pooler = mapped(model.text.pooler).eval()
    vision = {**towers.config["vision_cfg"], "timm_model_name": WIDE_TRUNK}
    text = {**towers.config["text_cfg"], "hf_pooler_type": MAPPED_POOLER}
    return replace(towers, config={**towers.config, "vision_cfg": vision, "text_cfg": text})
