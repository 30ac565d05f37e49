"""3,000 photographs and 15,000 captions with the `lite` encoder: recall, and the pipeline beside its parts alone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from record import Figure, need_data, record

from encoders import Encoder, decode_image, load_encoder
from indexer import SourceOptions, build_index
from searcher import EvaluateOptions, evaluate_index

ASKED = {"text_to_image": ".083 / .219 / .316", "image_to_text": ".063 / .165 / .239"}
CUTOFFS = (1, 5, 10)
DECODE_SAMPLE, ENCODE_BATCHES = 1000, 40


def main() -> None:
    table = need_data() / "flickr8k" / "captions.jsonl"
    photos, options = table.parent / "images", SourceOptions(image="image", text="captions", id="image")
    encoder = load_encoder("lite")
    captions = [text for line in table.read_text("utf-8").splitlines() for text in json.loads(line)["captions"]]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        before = alone(encoder, photos, captions)
        pictures = encode_stage(photos, folder / "pictures.index", encoder, None)
        both = encode_stage(table, folder / "all.index", encoder, options)
        after = alone(encoder, photos, captions)
        encode_stage(table, folder / "dev.index", encoder, replace(options, splits=("dev",)))
        recalls = {name: recall(folder / "dev.index", name) for name in ASKED}
    # The machine is shared and its speed drifts: the parts alone are measured before and after, and averaged.
    parts = {name: round((before[name] + after[name]) / 2, 1) for name in before}
    slower = min(parts["decode alone"], parts["encode alone"])
    ideal = pictures["items"] / parts["encode alone"] + len(captions) / parts["encode texts alone"]
    figures = [Figure(f"{name}, zero-shot R@1/5/10", recalls[name], asked) for name, asked in ASKED.items()]
    figures += [Figure(name, value, unit="items/s") for name, value in parts.items()]
    figures += [
        Figure("pipeline, 3,000 photographs", pictures["items_per_second"], unit="items/s"),
        Figure("beside the slower of its parts alone", round(pictures["items_per_second"] / slower, 3), ">= 0.8"),
        Figure("pipeline, 3,000 photographs and 15,000 captions", both["items_per_second"], unit="items/s"),
        Figure("beside both encoders alone, one after the other", round(ideal / both["seconds"], 3), ">= 0.8"),
        Figure("bottleneck of photographs, and of both", f"{pictures['bottleneck']}; {both['bottleneck']}"),
    ]
    record(
        "flickr8k_lite", figures, "All of the 3,000 photographs and their captions for speed; recall on the dev split."
    )


def encode_stage(corpus: Path, out: Path, encoder: Encoder, options: SourceOptions | None) -> dict[str, Any]:
    return dict(build_index(corpus, out, encoder=encoder, options=options).manifest.build["encode"])


def alone(encoder: Encoder, photos: Path, captions: list[str]) -> dict[str, float]:
    return {
        "decode alone": decode_alone(encoder, photos),
        "encode alone": encode_alone(encoder, photos),
        "encode texts alone": rate(3000, lambda: encoder.encode_texts(captions[:3000])),
    }


def rate(count: int, work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def decode_alone(encoder: Encoder, photos: Path) -> float:
    paths = sorted(photos.iterdir())[:DECODE_SAMPLE]

    def prepare(path: Path) -> None:
        encoder.preprocess(decode_image(path).pixels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return rate(len(paths), lambda: list(pool.map(prepare, paths)))


def encode_alone(encoder: Encoder, photos: Path) -> float:
    paths = sorted(photos.iterdir())[: encoder.batch_size]
    pixels = np.stack([encoder.preprocess(decode_image(path).pixels) for path in paths])
    encoder.encode_pixels(pixels)
    return rate(ENCODE_BATCHES * len(pixels), lambda: [encoder.encode_pixels(pixels) for _ in range(ENCODE_BATCHES)])


def recall(index: Path, direction: str) -> str:
    """R@1/5/10, any hit, by exact search over the index's own pairs."""
    found = evaluate_index(index, EvaluateOptions(exact=True))[direction]
    return " / ".join(f"{found[f'R@{k}']:.3f}" for k in CUTOFFS)


if __name__ == "__main__":
    main()
