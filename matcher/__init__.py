"""Matching texts with images, images with images and texts with texts, by one object.

`Matcher` declares which columns are matched and with which encoder; it evaluates, predicts calibrated probabilities,
extracts embeddings, searches, classifies, fine-tunes and saves. Importing this package imports no torch.
"""

from .calibration import Calibration
from .errors import CalibrationError, DataError, MatcherError
from .matcher import Matcher, semantic_search
from .matches import Match, Matches
from .negatives import Sampling
from .tables import Roles

__all__ = [
    "Calibration",
    "CalibrationError",
    "DataError",
    "Match",
    "Matcher",
    "MatcherError",
    "Matches",
    "Roles",
    "Sampling",
    "semantic_search",
]
