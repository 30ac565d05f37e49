"""An encoder's spec to an encoder. Imports torch on first use only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import EncoderError
from .regions.spec import checkpoint_folder, takes_regions

if TYPE_CHECKING:
    from .base import Encoder


def load_encoder(spec: str, device: str = "auto", precision: str = "auto") -> Encoder:
    """Return the encoder that a spec names.

    Args:
        spec: One of
            `ARCH/TAG`, e.g. `ViT-B-32/laion2b_s34b_b79k`: an open_clip architecture and its pretrained tag;
            `hf-hub:ORG/NAME`: an open_clip model on the hub;
            `local-dir:PATH`: a folder with `open_clip_config.json` and weights;
            `ARCH/PATH`: an architecture and a checkpoint file (`.safetensors`, `.pt`, `.pth`, `.bin`);
            `hrem:PATH`: a folder made by `twinlens fit-hrem`, whose pictures are region features;
            `lite`: the small encoder that ships inside ordinary packages.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA where there is one.
        precision: `fp32`, `bf16`, `fp16` (GPU only), or `auto`: 16 bits on a GPU, fp32 on a CPU.

    Raises:
        EncoderError: For a model that cannot be found or loaded, and for a device or precision that is not there.
    """
    if not spec.strip():
        raise EncoderError("the encoder spec is empty; give e.g. 'ViT-B-32/laion2b_s34b_b79k' or 'lite'")
    _check_packages()
    from .clip import ClipEncoder
    from .device import place
    from .pretrained import load_towers

    placement = place(device, precision)  # before a model is fetched for nothing
    if takes_regions(spec):
        from .regions.encoder import RegionEncoder

        return RegionEncoder(checkpoint_folder(spec), placement)
    return ClipEncoder(load_towers(spec), placement)


def _check_packages() -> None:
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise EncoderError(f"encoders need torch and open_clip: {error}; install them: pip install twinlens") from error
    del open_clip, torch
