"""Facts of pretrained open_clip models: size, arithmetic, dimension, licence, languages; read from `encoders.json`.

What was published of their recall on Flickr30K and COCO is in `evaluation.published`, by the same spec. A figure that
nobody published, or that could not be counted, is None and never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Terms = Literal["open", "NON-COMMERCIAL", "RESEARCH ONLY"]
Languages = Literal["English", "many"]
TERMS: Mapping[str, Terms] = {
    "MIT": "open",
    "Apache-2.0": "open",
    "CC-BY-NC": "NON-COMMERCIAL",
    "Apple": "RESEARCH ONLY",
}
"""What each licence of the catalogue allows, in plain words; `open` is any use."""

_FILE = Path(__file__).with_name("encoders.json")


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One pretrained model.

    Attributes:
        spec: `ARCH/TAG`, as `load_encoder` takes it.
        image_size: Pixels of the side of the square that it sees.
        dim: Length of its vectors.
        image_mparams: Millions of parameters of the image tower.
        text_mparams: The same of the text tower; None where it is not known.
        image_gflops: Billions of additions and multiplications for an image.
        text_gflops: The same for a text of the greatest length; None where it is not known.
        licence: Name of the licence of the weights.
        licence_source: Where that was read.
        languages: `English`, or `many` where it was trained on texts of many languages.
        xm3600: By language, text to image on Crossmodal-3600, the mean of R@1, R@5 and R@10 in percent. A language that
            is not there was not published.
    """

    spec: str
    image_size: int
    dim: int
    image_mparams: float
    text_mparams: float | None
    image_gflops: float
    text_gflops: float | None
    licence: str
    licence_source: str
    languages: Languages
    xm3600: Mapping[str, float]

    @property
    def architecture(self) -> str:
        """Name of the architecture in open_clip."""
        return self.spec.partition("/")[0]

    @property
    def terms(self) -> Terms:
        """What the licence allows."""
        return TERMS[self.licence]

    @property
    def mparams(self) -> float | None:
        """Millions of parameters of both towers; four times as many megabytes to download and to hold in fp32."""
        return None if self.text_mparams is None else self.image_mparams + self.text_mparams

    @property
    def vector_bytes(self) -> int:
        """Bytes of an item's float16 vector, which every index has."""
        return 2 * self.dim

    @property
    def code_bytes(self) -> int:
        """Bytes of an item's code in `ivf-pq4`, which larger indexes have besides: 4 bits for 1 value or 2."""
        return -(-self.dim // (2 if self.dim <= 256 else 4))

    @property
    def item_bytes(self) -> int:
        """Bytes that an item takes in a large index: its vector and its code."""
        return self.vector_bytes + self.code_bytes


@cache
def load_entries() -> tuple[CatalogueEntry, ...]:
    """Return all entries, in the order of the file: by size of the image tower, roughly."""
    return tuple(CatalogueEntry(**line) for line in read_file()["encoders"])


@cache
def languages() -> tuple[str, ...]:
    """Return the codes of the languages for which some entry has a recall, sorted."""
    return tuple(sorted({code for entry in load_entries() for code in entry.xm3600}))


@cache
def read_file() -> Mapping[str, Any]:
    """Return the file as it is: `encoders`, `presets`, and the sources of whole columns."""
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content
