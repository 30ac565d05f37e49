"""The catalogue of encoders: facts of pretrained open_clip models, and presets that name one of them.

`load_entries` reads the facts and `resolve_preset` a preset. Importing this package imports no torch.
"""

from .entries import CatalogueEntry, load_entries
from .presets import PRESETS, resolve_preset

__all__ = ["PRESETS", "CatalogueEntry", "load_entries", "resolve_preset"]
