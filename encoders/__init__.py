"""Two-tower models: images and texts to unit vectors that can be compared.

`load_encoder` opens a model, `decode_image` turns hostile bytes into pixels. Importing this package imports no torch.
"""

from .base import Encoder
from .errors import EncoderError, ImageError
from .images import DecodedImage, DecodeLimits, decode_image
from .load import load_encoder

__all__ = ["DecodeLimits", "DecodedImage", "Encoder", "EncoderError", "ImageError", "decode_image", "load_encoder"]
