"""3,000 photographs and 15,000 captions with the `lite` encoder: recall, and the pipeline beside its parts alone."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from record import Figure, need_data, record

from encoders import Encoder, decode_image, load_encoder
from indexer import SourceOptions, build_index
from searcher import Searcher
from storage import IndexStore

ASKED = {"text_to_image": ".083 / .219 / .316", "image_to_text": ".063 / .165 / .239"}
DECODE_SAMPLE = 1000


def main() -> None:
    table = need_data() / "flickr8k" / "captions.jsonl"
    options = SourceOptions(image="image", text="captions", id="image")
    encoder = load_encoder("lite")
    parts = {"decode alone": decode_alone(encoder, table), "encode alone": encode_alone(encoder)}
    texts = [c for line in table.read_text("utf-8").splitlines() for c in json.loads(line)["captions"]]
    parts["encode texts alone"] = rate(len(texts), lambda: encoder.encode_texts(texts))
    with tempfile.TemporaryDirectory() as folder:
        report = build_index(table, Path(folder) / "all.index", encoder=encoder, options=options)
        stages: dict[str, Any] = dict(report.manifest.build["encode"])
        dev = SourceOptions(image="image", text="captions", id="image", splits=("dev",))
        build_index(table, Path(folder) / "dev.index", encoder=encoder, options=dev)
        recalls = {name: recall(Path(folder) / "dev.index", encoder, name) for name in ASKED}
    images = report.manifest.counts.images
    # The captions take their own time on the same two cores: the photographs' share is what is left.
    text_seconds = len(texts) / parts["encode texts alone"]
    whole = images / (stages["seconds"] - text_seconds)
    slower = min(parts["decode alone"], parts["encode alone"])
    figures = [Figure(f"{name}, zero-shot R@1/5/10", recalls[name], asked) for name, asked in ASKED.items()]
    figures += [Figure(name, round(value, 1), unit="items/s") for name, value in parts.items()]
    figures += [
        Figure("pipeline, items of both kinds", stages["items_per_second"], unit="items/s"),
        Figure("pipeline, photographs in the time that the captions leave", round(whole, 1), unit="items/s"),
        Figure("the same beside the slower of decode-alone and encode-alone", round(whole / slower, 3), ">= 0.8"),
        Figure("encode stage", stages["seconds"], unit="s"),
        Figure("whole build: plan, encode, merge, index, measure, publish", round(report.seconds, 1), unit="s"),
        Figure("bottleneck", stages["bottleneck"]),
    ]
    record("flickr8k_lite", figures, f"{images} photographs and {len(texts)} captions; recall on the 1,000 of dev.")


def rate(count: int, work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def decode_alone(encoder: Encoder, table: Path) -> float:
    paths = sorted((table.parent / "images").iterdir())[:DECODE_SAMPLE]

    def prepare(path: Path) -> None:
        encoder.preprocess(decode_image(path).pixels)

    with ThreadPoolExecutor() as pool:
        return rate(len(paths), lambda: list(pool.map(prepare, paths)))


def encode_alone(encoder: Encoder) -> float:
    shape = encoder.preprocess(decode_image(next((need_data() / "flickr8k" / "images").iterdir())).pixels).shape
    pixels = np.random.default_rng(0).standard_normal((encoder.batch_size, *shape), dtype=np.float32)
    encoder.encode_pixels(pixels)
    return rate(10 * len(pixels), lambda: [encoder.encode_pixels(pixels) for _ in range(10)])


def recall(index: Path, encoder: Encoder, direction: str) -> str:
    """R@1/5/10, any hit, by exact search over the index's own pairs."""
    with Searcher.open(index, encoder=encoder) as searcher, IndexStore.open(index).open_version() as version:
        pairs = version.catalog.table("pairs")
        images, texts = (np.asarray(pairs.column(name)) for name in ("image_row", "text_row"))
        source, owner, target, into = ("texts", texts, "images", images)
        if direction == "image_to_text":
            source, owner, target, into = (target, into, source, owner)
        relevant: dict[int, set[str]] = {}
        for row, name in zip(owner, version.vectors(target).item_ids(into), strict=True):
            relevant.setdefault(int(row), set()).add(name)
        queries = version.vectors(source).gather(np.arange(version.vectors(source).rows)).astype(np.float32)
        found, _ = searcher.search_vectors(target, queries, 10, exact=True)
        hits = np.array([[name in relevant[row] for name in line] for row, line in enumerate(found)])
    return " / ".join(f"{hits[:, :k].any(axis=1).mean():.3f}" for k in (1, 5, 10))


if __name__ == "__main__":
    main()
