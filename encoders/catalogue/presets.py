"""Presets: `fast`, `balanced`, `best` and `multilingual` name an encoder of the catalogue, by device.

Which one is written in `encoders.json`; `benchmarks/encoder_catalogue.py` derives it from published recall and cost,
among open licences only, and a test holds the two equal. What is recorded of an index is the encoder and never the
preset, so that a preset may name another encoder one day.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Literal

from ..errors import EncoderError
from .entries import read_file

Kind = Literal["cpu", "cuda"]
PRESETS: Mapping[str, str] = {
    "fast": "the least arithmetic",
    "balanced": "the best recall at about the cost of ViT-B/32",
    "best": "the best recall that the device computes in reasonable time",
    "multilingual": "the best recall over many languages",
}
"""Each preset, and what it stands for."""


FORMS = f"a spec is lite, {', '.join(PRESETS)}, ARCH/TAG, ARCH/CHECKPOINT-FILE, local-dir:PATH or hf-hub:ORG/NAME"


def choice(preset: str, kind: Kind) -> str:
    """Return the encoder spec that a preset stands for on a kind of device."""
    return str(read_file()["presets"][preset][kind])


def resolve_preset(spec: str, device: str = "auto") -> str:
    """Return the encoder spec that a preset stands for on a device; any other spec as it is.

    Args:
        spec: A preset, or an encoder spec.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA where there is one. Torch is imported for `auto` alone, and
            only where the preset names another encoder on a GPU than on a CPU.

    Raises:
        EncoderError: It is a misspelt preset; told at once, as only torch and open_clip know all other specs.
    """
    if spec not in PRESETS:
        near = [] if "/" in spec or ":" in spec else get_close_matches(spec, ["lite", *PRESETS])
        if near and spec != "lite":
            raise EncoderError(f"there is no encoder {spec!r}; did you mean {' or '.join(near)}? ({FORMS})")
        return spec
    on_cpu, on_cuda = choice(spec, "cpu"), choice(spec, "cuda")
    if on_cpu == on_cuda:
        return on_cpu
    return on_cuda if _is_cuda(device) else on_cpu


def named(spec: str, device: str = "auto") -> str:
    """Return an encoder spec as a sentence names it: a preset with what it stands for. Torch is not imported."""
    if spec not in PRESETS:
        return spec
    on_cpu, on_cuda = choice(spec, "cpu"), choice(spec, "cuda")
    if device == "auto" and on_cpu != on_cuda:
        return f"{spec} ({on_cpu}, on a GPU {on_cuda})"
    return f"{resolve_preset(spec, device)} ({spec})"


def _is_cuda(device: str) -> bool:
    if device != "auto":
        return device.startswith("cuda")
    with suppress(ImportError):  # whoever loads the encoder says that torch is missing
        import torch

        return torch.cuda.is_available()
    return False
