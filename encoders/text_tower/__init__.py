"""Text towers without torch: exported once where an encoder is loaded, then texts to vectors by NumPy alone.

`find_text_tower` opens one for a fingerprint, `keep_text_tower` exports one. Importing this package imports no torch.
"""

from ..errors import TextTowerError
from .tower import TextTower, cache_folder, copy_text_tower, find_text_tower, was_refused

__all__ = ["TextTower", "TextTowerError", "cache_folder", "copy_text_tower", "find_text_tower", "was_refused"]
