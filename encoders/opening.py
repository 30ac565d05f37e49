"""What an encoder sees of a picture: its pixels, or its regions. No torch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .base import Encoder
from .images import DEFAULT_LIMITS, DecodeLimits, decode_image


class OpenedImage(Protocol):
    """A picture that was read and checked.

    Attributes:
        pixels: What the encoder's `preprocess` takes.
        width: Pixels across; None where there are none.
        height: Pixels down; None where there are none.
        sha256: Of the content.
        file_bytes: Length of the file; 0 where it was none of its own.
    """

    @property
    def pixels(self) -> Any: ...  # noqa: D102
    @property
    def width(self) -> int | None: ...  # noqa: D102
    @property
    def height(self) -> int | None: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def file_bytes(self) -> int: ...  # noqa: D102


def open_image(encoder: Encoder, source: Any, limits: DecodeLimits = DEFAULT_LIMITS) -> OpenedImage:
    """Return a picture as an encoder takes it: most take what `decode_image` gives, encoders of regions open their own.

    Raises:
        ImageError: It cannot be used with this encoder.
    """
    own: Any = getattr(encoder, "open_image", None)
    opened: OpenedImage = decode_image(source, limits) if own is None else own(source, limits)
    return opened


def pixels_for(encoder: Encoder, pixels: Any) -> np.ndarray:
    """Return an opened picture as `encoder.encode_pixels` takes it, as bytes where the encoder takes bytes."""
    prepare: Any = getattr(encoder, "byte_pixels", encoder.preprocess)
    ready: np.ndarray = prepare(pixels)
    return ready
