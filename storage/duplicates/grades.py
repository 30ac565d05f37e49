"""Grades of likeness between two images: the same bytes, saved again, or the same scene; and what tells them.

A cosine alone calls many different photographs copies, and a hash alone misses crops and takes pages of text for one
another: where an encoder's vectors can tell, both must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..schema import EncoderInfo

Grade = Literal["exact", "resaved", "similar"]
GRADES: tuple[Grade, ...] = get_args(Grade)
EXACT, RESAVED, SIMILAR, UNLIKE = range(4)
"""Positions in `GRADES`, and what is in none of them."""

# Width over height of a copy, beside that of the original.
SHAPE = 0.03


@dataclass(frozen=True, kw_only=True)
class CopyRule:
    """From when on two images count as copies, with vectors of one kind of encoder.

    Attributes:
        sure_bits: Bits up to which hashes alone tell a copy; -1 where vectors must agree in any case.
        same_size_bits: Bits in which the hashes of an image and of its copy of the same width and height differ at
            most. Saving again changes few; different screenshots, or pages of text, have one size and lie closer than
            photographs do.
        bits: Bits for a copy that was resized.
        cosine: What vectors must have at least for a copy.
        scene_bits: Bits for a crop, a mirrored image, one with a watermark, a picture taken a moment later.
        scene_cosine: Cosine for these.
        alone: The cosine from which vectors tell a copy where an image has no hash; None where they cannot.
    """

    sure_bits: int
    same_size_bits: int
    bits: int
    cosine: float
    scene_bits: int
    scene_cosine: float
    alone: float | None

    @property
    def by_hash(self) -> bool:
        """Whether hashes alone tell copies, as vectors cannot."""
        return self.sure_bits >= 0

    def reach(self, loosest: int) -> int:
        """Return how many bits the hashes of two images of a grade may differ in."""
        return self.scene_bits if loosest == SIMILAR else self.bits

    def grades(
        self, apart: NDArray[np.uint8], cosines: NDArray[np.float32], shape: SameShape, same_content: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Return the grade of each of n pairs, (n,) uint8: EXACT, RESAVED, SIMILAR or UNLIKE.

        Args:
            apart: (n,) bits in which the hashes differ.
            cosines: (n,) cosines of the vectors.
            shape: Whether shapes and sizes agree.
            same_content: (n,) whether the bytes are the same.
        """
        near = apart <= np.where(shape.same_size, self.same_size_bits, self.bits)
        copies = near & shape.same_shape & ((apart <= self.sure_bits) | (cosines >= self.cosine))
        scenes = (apart <= self.scene_bits) & (cosines >= self.scene_cosine)
        grades = np.full(len(apart), UNLIKE, dtype=np.uint8)
        reshaped = (apart <= self.bits) & ((apart <= self.sure_bits) | (cosines >= self.cosine))
        grades[scenes | reshaped] = SIMILAR
        grades[copies] = RESAVED
        grades[same_content] = EXACT
        return grades


# CLIP ViT-B/32: of 600 different photographs 0.3 % have another one at 0.97, 1.2 % at 0.95.
_TELLING = CopyRule(sure_bits=-1, same_size_bits=4, bits=8, cosine=0.8, scene_bits=16, scene_cosine=0.9, alone=0.97)
# The images of `lite` are mixtures of class names: two different swings have 0.9999, and a photograph resized to 0.3
# has 0.68 (median) to itself, so that the hash decides, and the vector where the hash is in doubt.
_BLIND = CopyRule(sure_bits=4, same_size_bits=4, bits=8, cosine=0.0, scene_bits=12, scene_cosine=0.7, alone=None)


def copy_rule(encoder: EncoderInfo | None) -> CopyRule:
    """Return what tells copies among images by the vectors of an encoder."""
    blind = encoder is not None and "lite" in (encoder.spec, encoder.details.get("family"))
    return _BLIND if blind else _TELLING


@dataclass(frozen=True, kw_only=True, eq=False)
class Sizes:
    """Width and height of n images, NaN where they are not known."""

    widths: NDArray[np.float64]
    heights: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> Sizes:
        """Return those of some images."""
        return Sizes(widths=self.widths[rows], heights=self.heights[rows])

    def beside(self, other: Sizes) -> SameShape:
        """Return whether they agree with those of other images, element by element."""
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(self.widths * other.heights / (self.heights * other.widths) - 1)
        return SameShape(
            same_shape=~(apart > SHAPE), same_size=(self.widths == other.widths) & (self.heights == other.heights)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SameShape:
    """How n pairs of images agree.

    Attributes:
        same_shape: (n,) whether width over height is nearly the same, or not known.
        same_size: (n,) whether width and height are known and the same.
    """

    same_shape: NDArray[np.bool_]
    same_size: NDArray[np.bool_]

    @classmethod
    def unknown(cls, count: int) -> SameShape:
        """Return what holds of images of which no size is known."""
        return cls(same_shape=np.ones(count, dtype=np.bool_), same_size=np.zeros(count, dtype=np.bool_))
