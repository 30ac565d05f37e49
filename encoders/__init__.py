"""Two-tower models: images and texts to unit vectors that can be compared.

`load_encoder` opens a model, `decode_image` turns hostile bytes into pixels. Importing this package imports no torch; a
name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .base import Encoder
    from .errors import EncoderError, ImageError
    from .images import DecodedImage, DecodeLimits, decode_image
    from .load import load_encoder

__all__ = ["DecodeLimits", "DecodedImage", "Encoder", "EncoderError", "ImageError", "decode_image", "load_encoder"]

_MODULES = {
    "DecodeLimits": ".images",
    "DecodedImage": ".images",
    "Encoder": ".base",
    "EncoderError": ".errors",
    "ImageError": ".errors",
    "decode_image": ".images",
    "load_encoder": ".load",
}
__getattr__ = lazy_exports(__name__, _MODULES)
