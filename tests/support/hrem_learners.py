"""A learner of HREM on a small folder, with one batch for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from encoders.device import choose_device
from training.hrem import HremConfig
from training.hrem.hrem_learner import HremLearner
from training.hrem.hrem_training import parts_of
from training.hrem.region_batches import RegionBatch
from training.hrem.towers.region_features import open_split
from training.loop import ignore_progress


def learner_of(
    precomp: Path, config: HremConfig, precision: str = "fp32", device: str = "cpu"
) -> tuple[HremLearner, RegionBatch]:
    """Return a fresh learner, the same for the same settings, and a batch of 16 captions."""
    torch.manual_seed(0)
    splits = open_split(precomp, "train"), open_split(precomp, "dev")
    parts = parts_of(splits, config, choose_device(device, precision), precomp, ignore_progress)
    return parts.learner, parts.train.batch(np.arange(16), (0, 0, 0))
