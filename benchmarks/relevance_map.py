"""Where an image matches: how often a map points at the one of four photographs that a caption is of.

Mosaics of four COCO photographs, each cut square; the query is a caption of one of them, which lies at a random corner.
The highest cell of the map is to lie in that quarter (the pointing game of Zhang et al., 2018; chance 1/4). Beside it
the quarters encoded by themselves, which is the most that the encoder can tell, and the map of an occlusion test: how
much the cosine falls where so many cells are covered by a blur of the image (Zeiler and Fergus, 2014).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from record import Figure, need_data, record

from encoders import load_encoder
from searcher.relevance_map import CELLS, map_of, windows

MOSAICS, SIDE, RESAMPLES = 100, 384, 2000
COVERED = 4

Map = NDArray[np.float32]
Encode = Callable[[Sequence[Image.Image]], Map]


class Case(NamedTuple):
    """A mosaic, the quarter that is asked for, and the vector of what is asked."""

    mosaic: Image.Image
    quarter: int
    query: Map


def main() -> None:
    folder = need_data() / "coco_cc"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder = load_encoder("lite", device="cpu", precision="fp32")
    rng = np.random.default_rng(7)
    cases = []
    for _ in range(MOSAICS):
        chosen = rng.choice(len(rows), 4, replace=False)
        quarter = int(rng.integers(4))
        (query,) = encoder.encode_texts([rows[chosen[quarter]]["captions"][0]])
        cases.append(Case(mosaic([folder / rows[one]["image"] for one in chosen]), quarter, query))
    started = time.process_time()
    found = [pointed(map_of(encoder.encode_images(windows(case.mosaic)) @ case.query)) for case in cases]
    seconds = (time.process_time() - started) / MOSAICS
    hits = {
        "the map of windows": found,
        "the map of an occlusion test": [pointed(occluded(encoder.encode_images, case)) for case in cases],
        "the quarters by themselves": [
            int(np.argmax(encoder.encode_images(quarters(case.mosaic)) @ case.query)) for case in cases
        ],
    }
    asked = np.array([case.quarter for case in cases])
    figures = [Figure("mosaics", MOSAICS)]
    figures += [Figure(f"{name}: right quarter", share(np.array(one) == asked)) for name, one in hits.items()]
    figures.append(Figure("a map of windows", round(seconds, 3), unit="CPU s"))
    record("relevance_map", figures, "`lite` on COCO photographs; intervals: 95 %, bootstrap over mosaics. Chance .25.")


def mosaic(paths: Sequence[Path]) -> Image.Image:
    whole, half = Image.new("RGB", (SIDE, SIDE)), SIDE // 2
    for place, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side)).resize((half, half), Image.Resampling.LANCZOS)
        whole.paste(cut, (place % 2 * half, place // 2 * half))
    return whole


def quarters(image: Image.Image) -> list[Image.Image]:
    half = SIDE // 2
    corners = [(place % 2 * half, place // 2 * half) for place in range(4)]
    return [image.crop((left, top, left + half, top + half)) for left, top in corners]


def pointed(relevance: Map) -> int:
    """Return the quarter that the highest cell of a map lies in."""
    row, column = divmod(int(relevance.argmax()), CELLS)
    return row // (CELLS // 2) * 2 + column // (CELLS // 2)


def occluded(encode: Encode, case: Case) -> Map:
    image, cell = case.mosaic, SIDE / CELLS
    blurred = image.filter(ImageFilter.GaussianBlur(cell))
    covers = [(top, left) for top in range(1 - COVERED, CELLS) for left in range(1 - COVERED, CELLS)]
    covered = []
    for top, left in covers:
        mask = Image.new("L", image.size, 0)
        edges = (left * cell, top * cell, (left + COVERED) * cell, (top + COVERED) * cell)
        mask.paste(255, tuple(round(edge) for edge in edges))  # type: ignore[arg-type]
        covered.append(Image.composite(blurred, image, mask.filter(ImageFilter.GaussianBlur(cell / 2))))
    cosines = encode([image, *covered]) @ case.query
    falls, times = np.zeros((2, CELLS, CELLS))
    for (top, left), cosine in zip(covers, cosines[1:], strict=True):
        part = slice(max(top, 0), top + COVERED), slice(max(left, 0), left + COVERED)
        falls[part] += cosines[0] - cosine
        times[part] += 1
    return (falls / times).astype(np.float32)


def share(right: NDArray[np.bool_]) -> str:
    draws = np.random.default_rng(0).integers(0, len(right), (RESAMPLES, len(right)))
    low, high = np.percentile(right[draws].mean(axis=1), [2.5, 97.5])
    return f"{right.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
