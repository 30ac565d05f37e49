"""Files of weights, written so that a full disk is told as one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from storage.files.atomic import explained


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors to a file of safetensors.

    Raises:
        StorageError: The disk is full or failing.
    """
    with explained("write", path):
        try:
            save_file(dict(weights), path)
        except SafetensorError as error:  # what the system said stands in its text alone
            said = re.search(r"os error (\d+)", str(error))
            code = int(said[1]) if said else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error
