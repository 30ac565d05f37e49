"""Pictures and captions that belong together, as tables of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Painted:
    """24 pictures, three of each colour, and a caption for each."""

    folder: Path
    images: list[str]
    captions: list[str]
    colours: list[str]

    @property
    def pairs(self) -> dict[str, list[Any]]:
        return {"caption": list(self.captions), "image": list(self.images)}

    @property
    def all_pairs(self) -> dict[str, list[Any]]:
        """Each caption with all three pictures of its colour."""
        rows = [(i, j) for i, one in enumerate(self.colours) for j, other in enumerate(self.colours) if one == other]
        return {"caption": [self.captions[i] for i, _ in rows], "image": [self.images[j] for _, j in rows]}


@dataclass(frozen=True)
class Photographs:
    """Real photographs of Flickr8k dev with five human captions each."""

    images: list[str]
    captions: list[list[str]]

    @property
    def pairs(self) -> dict[str, list[Any]]:
        texts = [text for line in self.captions for text in line]
        return {"caption": texts, "image": [image for image in self.images for _ in range(5)]}
