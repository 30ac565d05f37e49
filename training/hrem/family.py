"""HREM as an encoder family: how a spec names a checkpoint, and which layout its images come in. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from encoders.load import EncoderFamily

from .towers.region_features import LAYOUT

if TYPE_CHECKING:
    from encoders.device import Placement

    from .towers.region_encoder import RegionEncoder

PREFIX = "hrem:"


def checkpoint_folder(spec: str) -> Path:
    """Return the folder that `hrem:PATH` names."""
    return Path(spec.removeprefix(PREFIX)).expanduser().resolve()


def load(spec: str, placement: Placement) -> RegionEncoder:
    """Return the encoder of a checkpoint, `hrem:PATH`."""
    from .towers.region_encoder import RegionEncoder

    folder = checkpoint_folder(spec)
    return RegionEncoder(f"{PREFIX}{folder}", folder, placement)


FAMILY = EncoderFamily(load=load, layout=LAYOUT)
