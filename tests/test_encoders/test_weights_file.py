"""Files of weights."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from encoders.two_towers import save_weights
from storage.errors import StorageError


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights({"a": torch.ones(3)}, path)
    assert load_file(path)["a"].tolist() == [1, 1, 1]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*weights\.safetensors: File too large; "):
            save_weights({"a": torch.ones(3000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
