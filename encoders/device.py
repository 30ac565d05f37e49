"""Device and precision of a model: what was asked for, checked against what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from .errors import EncoderError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A device that exists, and a precision that it supports."""

    device: str
    precision: str

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]

    @property
    def dtype(self) -> torch.dtype:
        """The type that autocast computes in."""
        return _DTYPES[self.precision]


def choose_device(device: str = "auto", precision: str = "auto") -> Placement:
    """Return the device and precision to run with.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA where there is one.
        precision: `fp32`, `bf16`, `fp16`, or `auto`: on a GPU bf16 where there is bf16, else fp16; on a CPU fp32.
            16 bits double the speed and move a cosine by about 0.001; fp16 is finer, bf16 cannot overflow.

    Raises:
        EncoderError: There is no CUDA device, or the device does not support the precision.
    """
    resolved = _device(device)
    return Placement(device=resolved, precision=_precision(resolved, precision))


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise EncoderError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        seen = f"torch {torch.__version__} sees no CUDA device"
        raise EncoderError(
            f"device {device!r} was asked for, but {seen}; use --device cpu or auto, or repair the driver"
        )
    number, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= count:
        raise EncoderError(f"there is no device {device!r}: {count} CUDA devices are here, numbered from 0")
    return device


def _precision(device: str, precision: str) -> str:
    if precision not in PRECISIONS:
        raise EncoderError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if device == "cpu":
        if precision == "fp16":
            raise EncoderError("precision 'fp16' runs on a GPU only; on device 'cpu' choose fp32 or bf16")
        return "fp32" if precision == "auto" else precision
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not bf16:
        raise EncoderError(f"device {device!r} has no bf16; choose --precision fp16 or fp32")
    if precision == "auto":
        return "bf16" if bf16 else "fp16"
    return precision
