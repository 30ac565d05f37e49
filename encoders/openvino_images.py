"""An image tower that OpenVINO compiles for this processor: bytes of images in, unit vectors out.

On two cores of a server processor it computes `lite` 2.4 times as fast in fp32 as torch, with vectors that differ from
torch's by rounding alone; transformers gain in bf16. What it computes is compared with torch before it is used.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .fast_preprocess import FastPreprocess

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino_is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported for that."""
    return importlib.util.find_spec("openvino") is not None


class _Tower(nn.Module):
    """What is compiled: bytes to floats, the image tower, unit length."""

    def __init__(self, visual: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.visual, self.scale, self.shift = visual, scale, shift

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.visual(pixels.float() * self.scale + self.shift)
        return functional.normalize(features, dim=-1)


class OpenVinoImages:
    """The compiled image tower of an encoder. Safe from many threads; each one that calls gets a core of its own."""

    def __init__(self, visual: nn.Module, preprocess: FastPreprocess, *, precision: str, cores: int) -> None:
        """Compile `visual`, an fp32 module on the CPU.

        Args:
            visual: (n, 3, H, W) float32 to (n, dim) features.
            preprocess: Says how large its images are, and what a byte becomes.
            precision: `fp32` or `bf16`.
            cores: How many threads will call.
        """
        openvino = _openvino()
        model = _converted(openvino, _Tower(visual, preprocess.scale, preprocess.shift), preprocess.pixel_shape)
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # the decoding threads want the same cores
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._requests = threading.local()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return (n, dim) float32 unit rows for (n, 3, H, W) uint8."""
        request = getattr(self._requests, "one", None)
        if request is None:
            request = self._requests.one = self._compiled.create_infer_request()
        rows: np.ndarray = np.array(request.infer([pixels])[0], dtype=np.float32)
        return rows


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send a message to its makers at each import."""
    if "openvino" not in sys.modules:
        known = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it fails, and none is sent
        try:
            import openvino  # noqa: F401
        finally:
            del sys.modules["openvino_telemetry"]
            if known is not None:
                sys.modules["openvino_telemetry"] = known
    return sys.modules["openvino"]


def _converted(openvino: Any, tower: _Tower, shape: tuple[int, ...]) -> Any:
    example = torch.zeros((2, *shape), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's tracer: a shape that became a constant is found by the comparison
        return openvino.convert_model(tower, example_input=example, input=[openvino.PartialShape([-1, *shape])])
