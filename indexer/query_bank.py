"""Generic captions, to tune image search where a corpus brings no texts of its own."""

from __future__ import annotations

from itertools import product

SUBJECTS = (
    "a man in a red jacket", "two children", "a woman with a bicycle", "a group of friends", "a brown dog",
    "a small cat", "a white horse", "several birds", "a yellow car", "an old train", "a sailing boat", "a tall tree",
    "a bunch of flowers", "a plate of food", "a cup of coffee", "a wooden chair", "a football player", "a crowd",
)  # fmt: skip
PLACES = (
    "on a beach", "in the snow", "on a busy street", "in a green field", "near a lake", "in a kitchen",
    "in front of a building", "at night", "on a mountain", "in a garden", "under a bridge", "in a living room",
    "at a market", "close up",
)  # fmt: skip


def generic_captions() -> list[str]:
    """Return 252 captions of everyday scenes, always the same."""
    return [f"{subject} {place}" for subject, place in product(SUBJECTS, PLACES)]
