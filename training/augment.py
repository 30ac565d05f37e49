"""Another look at a picture: a part of it, perhaps mirrored."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

# The share of the picture that is kept, and how far its sides may change against each other. Captions name what is
# at the edges too, so crops stay large; classifiers go down to a share of 0.08.
SHARE = (0.6, 1.0)
RATIO = (0.8, 1.25)


def augmented(image: Image.Image, seed: tuple[int, ...]) -> Image.Image:
    """Return a random crop of 60 to 100 % of a picture, mirrored half of the time; the same for the same seed."""
    rng = np.random.default_rng(seed)
    share, ratio = rng.uniform(*SHARE), math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    width = min(image.width, max(1, round(image.width * math.sqrt(share * ratio))))
    height = min(image.height, max(1, round(image.height * math.sqrt(share / ratio))))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    crop = image.crop((left, top, left + width, top + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
