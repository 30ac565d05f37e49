"""Text towers without torch: exported once where an encoder is loaded, then texts to vectors by NumPy alone.

`find_text_tower` opens one for a fingerprint. Importing this package imports no torch.
"""

from .tower import TextTower, find_text_tower

__all__ = ["TextTower", "find_text_tower"]
