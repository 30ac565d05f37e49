"""Lists of unequal length to one padded tensor and its mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def padded_ids(ids: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, longest) int64 ids and the mask of those that are no padding."""
    lengths = np.array([len(one) for one in ids])
    mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
    table = np.full(mask.shape, pad, dtype=np.int64)
    table[mask] = [number for one in ids for number in one]
    return torch.from_numpy(table), torch.from_numpy(mask)


def padded_rows(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, longest, dim) float32 for arrays of (length, dim), zeros behind each, and the mask."""
    lengths = np.array([len(one) for one in rows])
    mask = np.arange(int(lengths.max())) < lengths[:, None]
    table = np.zeros((*mask.shape, rows[0].shape[1]), dtype=np.float32)
    table[mask] = np.concatenate(rows)
    return torch.from_numpy(table), torch.from_numpy(mask)
