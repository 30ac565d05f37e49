"""Loading encoders: from a spec to an encoder. Torch is imported on first use only.

Families of encoders besides open_clip's are registered as entry points of the group `twinlens.encoders`: the name is
the prefix of their specs (`hrem` for `hrem:PATH`), the value an `EncoderFamily`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from storage.arguments import check_arguments
from storage.errors import install_hint

from .catalogue.presets import resolve_preset
from .errors import EncoderError

if TYPE_CHECKING:
    from .base import Encoder
    from .device import Placement

GROUP = "twinlens.encoders"
DEFAULT_ENCODER = "ViT-B-32/laion2b_s34b_b79k"
"""The encoder of an index or a matcher for which none is named."""


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """A registered kind of encoder.

    Attributes:
        load: From a spec and a device to the encoder.
        layout: The corpus layout that its images come in; None for ordinary image files.
    """

    load: Callable[[str, Placement], Encoder]
    layout: str | None = None


def family_of(spec: str | None) -> EncoderFamily | None:
    """Return the registered family that a spec belongs to; None for a model of open_clip and for `lite`."""
    prefix, colon, _ = (spec or "").partition(":")
    for entry in entry_points(group=GROUP, name=prefix) if colon else ():
        family: EncoderFamily = entry.load()
        return family
    return None


def load_encoder(spec: str, device: str = "auto", precision: str = "auto") -> Encoder:
    """Return the encoder that a spec names.

    Args:
        spec: One of
            `ARCH/TAG`, e.g. `ViT-B-32/laion2b_s34b_b79k`: an open_clip architecture and its pretrained tag;
            `hf-hub:ORG/NAME`: an open_clip model on the hub;
            `local-dir:PATH`: a folder with `open_clip_config.json` and weights;
            `ARCH/PATH`: an architecture and a checkpoint file (`.safetensors`, `.pt`, `.pth`, `.bin`);
            `hrem:PATH`: a folder made by `twinlens fit-hrem`, whose images are region features;
            `lite`: the small encoder that ships inside ordinary packages;
            `fast`, `balanced`, `best` or `multilingual`: presets, each for a model of open_clip (docs/encoders.md).
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA where there is one.
        precision: `fp32`, `bf16`, `fp16` (GPU only), or `auto`: 16 bits on a GPU, fp32 on a CPU.

    Raises:
        EncoderError: The model cannot be found or loaded, or the device or precision is not available.
    """
    check_arguments(load_encoder, locals(), EncoderError)
    if not spec.strip():
        raise EncoderError("the encoder spec is empty; give e.g. 'ViT-B-32/laion2b_s34b_b79k' or 'lite'")
    spec = resolve_preset(spec, device)
    _check_packages("lite" if spec == "lite" else "encode")
    from .checkpoints import load_towers
    from .device import choose_device
    from .open_clip_encoder import ClipEncoder
    from .two_towers import remembered_fingerprint

    placement, began_ns = choose_device(device, precision), time.time_ns()  # checked before a model is downloaded
    family = family_of(spec)
    if family is not None:
        return family.load(spec, placement)
    return ClipEncoder(load_towers(spec), placement, partial(remembered_fingerprint, began_ns=began_ns))


def _check_packages(extra: str) -> None:
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise EncoderError(f"encoders need torch and open_clip: {error}; {install_hint(extra)}") from error
    del open_clip, torch
