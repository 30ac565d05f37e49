"""The process that decodes and resizes images into shared memory; it never touches a GPU.

It may be ended at any moment, and ends by itself when nobody holds the other end of its standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storage.child_process import own_output, serve

from ..errors import ImageError
from ..fast_preprocess import FastPreprocess
from ..images import DecodeLimits, decode_image
from ..preprocess import Preprocess, PreprocessConfig
from .processes import info_as_json
from .shared_pixels import mapped


class Decoder:
    """Decodes one image after the other.

    Args:
        descriptor: The open file of the shared memory.
        setup: As `DecodeProcesses` sends it: number of slots, configuration of the preprocessing, limits.
    """

    def __init__(self, descriptor: int, setup: dict[str, Any]) -> None:
        limits = setup["limits"]
        self._preprocess = FastPreprocess(Preprocess(PreprocessConfig.of(setup["config"])))
        self._limits = DecodeLimits(**{**limits, "formats": tuple(limits["formats"])})
        self._slots = mapped(descriptor, setup["count"], self._preprocess.pixel_shape)

    def answer(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes, bool]:
        """Write one image to its slot; return what is known of it, or why it cannot be used."""
        if "slot" not in request:
            return {}, b"", False  # only whether this process works is asked
        source = data if request["path"] is None else Path(request["path"])
        try:
            image = decode_image(source, self._limits, shrink=self._preprocess.exact.shrink)
        except ImageError as error:
            return {"failed": [error.reason, error.detail]}, b"", False
        np.copyto(self._slots[request["slot"]], self._preprocess(image.pixels))
        return {"info": info_as_json(image.info)}, b"", False


def main(descriptor: str, setup: str) -> None:
    """Answer requests on standard input."""
    torch.set_num_threads(1)
    serve(sys.stdin.buffer, own_output(), Decoder(int(descriptor), json.loads(setup)).answer)
