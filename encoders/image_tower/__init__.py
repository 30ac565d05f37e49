"""Image towers without torch: exported once where an encoder is loaded, then images to vectors by NumPy alone.

`find_image_tower` opens one for a fingerprint. So far the tower of `lite` and of what is fine-tuned from it is of a
kind that can be exported. Importing this package imports no torch.
"""

from .tower import ImageTower, find_image_tower

__all__ = ["ImageTower", "find_image_tower"]
